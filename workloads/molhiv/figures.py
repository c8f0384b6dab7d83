"""A contact sheet of the default data: molecules, with what the label rests on."""

from __future__ import annotations

import io
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image
from rdkit import Chem
from rdkit.Chem import rdDepictor
from rdkit.Chem.Draw import rdMolDraw2D

from lumos.workloads.common.sheets import save_sheet
from lumos.workloads.molhiv.alerts import alerts
from lumos.workloads.molhiv.data import nci_molecules

COLOUR = (1.0, 0.62, 0.45)
NONE = "no alert"
SHOWN = (
    "aromatic nitro",
    "aromatic amine",
    "nitroso",
    "three-membered heterocycle",
    "azo, azide, diazo or triazene",
    "aliphatic halide",
    "polycyclic aromatic system",
    NONE,
)


def contact_sheet(folder: Path) -> Path:
    """Draw eight of NCI's molecules, one for each of seven alerts and one without; returns the path of the PNG."""
    figure = Figure(figsize=(12, 6.4), dpi=100)
    for place, (name, molecule) in enumerate(_examples().items()):
        axes = figure.add_subplot(2, 4, place + 1)
        axes.imshow(_drawing(molecule, alerts(molecule).get(name, set())))
        positive = name != NONE
        axes.set_title(f"{int(positive)}  ·  {name}", fontsize=11, color="#b03a12" if positive else "#444444")
        axes.set_axis_off()
    figure.suptitle(
        "molhiv, default data: real molecules, 1 where a structural alert (orange) is left standing; not HIV",
        fontsize=13,
    )
    figure.subplots_adjust(left=0.01, right=0.99, top=0.87, bottom=0.01, wspace=0.03, hspace=0.16)
    return save_sheet(figure, folder / "molhiv.png")


def _examples() -> dict[str, Chem.Mol]:
    """A molecule of middle size for each name, the first that has this alert alone."""
    found: dict[str, Chem.Mol] = {}
    for smiles in nci_molecules(label_noise=0.0, seed=0).smiles:
        molecule = Chem.MolFromSmiles(smiles)
        if not 12 <= molecule.GetNumAtoms() <= 22 or "." in smiles:
            continue
        here = alerts(molecule)
        if len(here) <= 1:
            found.setdefault(next(iter(here), NONE), molecule)
    return {name: found[name] for name in SHOWN if name in found}


def _drawing(molecule: Chem.Mol, atoms: set[int]) -> Image.Image:
    bonds = [b.GetIdx() for b in molecule.GetBonds() if {b.GetBeginAtomIdx(), b.GetEndAtomIdx()} <= atoms]
    rdDepictor.Compute2DCoords(molecule)
    canvas = rdMolDraw2D.MolDraw2DCairo(560, 520)
    canvas.drawOptions().bondLineWidth = 3
    canvas.drawOptions().setHighlightColour(COLOUR)
    rdMolDraw2D.PrepareAndDrawMolecule(canvas, molecule, highlightAtoms=sorted(atoms), highlightBonds=bonds)
    canvas.FinishDrawing()
    return Image.open(io.BytesIO(canvas.GetDrawingText()))
