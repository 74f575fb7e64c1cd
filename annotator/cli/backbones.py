"""`annotator backbones` and `annotator fetch`: list the catalog, and fetch a backbone before its first use."""

import click
from rich.table import Table

from annotator.backbones import languages_of, size_of
from annotator.cli.terminal import console
from model.backbones.catalog import CATALOG
from model.backbones.packages import accept, is_accepted


@click.command()
def backbones() -> None:
    """List the language models of the catalog, with their licenses and languages."""
    table = Table("name", "family", "size", "license", "languages", "note")
    for entry in CATALOG.values():
        advice = "recommended for other languages than English" if entry.multilingual else ""
        access = "needs an account on the hub" if entry.gated else ""
        note = "; ".join(filter(None, (advice, access, entry.note)))
        table.add_row(entry.name, entry.family, size_of(entry), entry.license, languages_of(entry.languages), note)
    console.print(table)
    console.print("Any other causal or encoder-decoder model can be named by its hub id or its folder.")


@click.command()
@click.argument("backbone")
@click.option("--accept-license", is_flag=True, help="Accept the license that is shown without this option.")
def fetch(backbone: str, accept_license: bool) -> None:
    """Fetch a language model before its first use, and check that it can be loaded.

    BACKBONE is a name from the catalog, a hub id or a folder.
    """
    entry = CATALOG.get(backbone)
    if entry and entry.terms:
        console.print(f"{entry.name}: {entry.license}, {entry.terms}", highlight=False)
        if accept_license and not is_accepted(entry):
            accept(entry, "the command line")
    from model.backbones.backbone import load_backbone

    loaded = load_backbone(backbone)
    weights = sum(weight.numel() for weight in loaded.model.parameters())
    console.print(f"{backbone} is on this machine: {weights / 1e6:.0f} million parameters.", highlight=False)
