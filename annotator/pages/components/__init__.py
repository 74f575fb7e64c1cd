"""Components shared by several pages: layout, keys, label cards and dialogs."""
