"""Parts that several pages share: layout, keys, label cards and dialogs."""
