"""A phantom of axial head MRI with and without a tumour; everything follows from the generator that is passed in.

Lengths are in units of half the image's width, x to the right and y towards the nose; signals are relative to the
brightest tissue. It has the anatomy that tells the classes apart and the scanner's faults (bias field, blur, Rician
noise), not the physics of spins: a tissue's signal is drawn about a typical value for the kind of scan.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from scipy import ndimage

CLASSES = ("glioma", "meningioma", "notumor", "pituitary")
"""In the order of the labels 0 to 3, which is that of the published folders."""

Field = Float[np.ndarray, "y x"]

TISSUES = ("scalp", "skull", "csf", "grey", "white", "lesion", "core", "oedema", "vessel")
SIGNALS: Mapping[str, Mapping[str, float]] = {
    "T1ce": dict(zip(TISSUES, (0.60, 0.10, 0.14, 0.44, 0.58, 0.92, 0.20, 0.36, 0.95), strict=True)),
    "T2": dict(zip(TISSUES, (0.55, 0.08, 0.95, 0.58, 0.42, 0.68, 0.92, 0.82, 0.10), strict=True)),
    "FLAIR": dict(zip(TISSUES, (0.45, 0.08, 0.12, 0.55, 0.45, 0.74, 0.25, 0.88, 0.12), strict=True)),
}
"""Typical signals of the kinds of scan: T1 with contrast agent, T2, and T2 with the fluid's signal suppressed."""

SHARE = {"T1ce": 0.9, "T2": 0.05, "FLAIR": 0.05}
"""How often each kind of scan is drawn; the published images are mostly T1 with contrast agent."""

FAINTEST = 0.7
"""A lesion's contrast to white matter is multiplied by a number between this and 1."""

DULL = 0.15
"""How often a glioma takes up no contrast agent and is a dull patch."""

BRAIN, DURA, SKULL, SCALP = 0.86, 0.89, 0.95, 1.0
"""Outer edges of the brain, of the fluid about it, of the skull and of the scalp, as shares of the head's radius."""


@dataclass(frozen=True)
class Head:
    """Where each pixel of an image is in its head.

    ``x`` and ``y`` are head coordinates (half axes of the head are ``axes``), ``rho`` is 0 in the middle and 1 at the
    skin, ``level`` runs from 0 (base of the skull) to 1 (crown).
    """

    x: Field
    y: Field
    rho: Field
    axes: tuple[float, float]
    level: float
    edge: float

    def inside(self, distance: Field) -> Field:
        """Make a soft mask: 1 where the distance is well below 0, 0 where well above, a ramp about a pixel wide."""
        return (0.5 - distance / (4 * self.edge)).clip(0, 1)

    def ellipse(self, cx: float, cy: float, rx: float, ry: float, turn: float = 0.0) -> Field:
        """Make the soft mask of an ellipse about (cx, cy), turned anticlockwise by ``turn`` (rad)."""
        dx, dy = self.x - cx, self.y - cy
        c, s = np.cos(turn), np.sin(turn)
        radius = np.sqrt(((c * dx + s * dy) / rx) ** 2 + ((c * dy - s * dx) / ry) ** 2)
        return self.inside((radius - 1.0) * min(rx, ry))


def phantom(kind: str, pixels: int, rng: np.random.Generator) -> UInt8[np.ndarray, "y x"]:
    """Draw a head with the given kind of tumour (:data:`CLASSES`), ``pixels`` wide and high, 0 to 255."""
    head = _head(kind, pixels, rng)
    scan = str(rng.choice(list(SHARE), p=list(SHARE.values())))
    signal = {name: value * rng.uniform(0.9, 1.1) for name, value in SIGNALS[scan].items()}
    image = _anatomy(head, signal, rng)
    if kind != "notumor":
        image = TUMOURS[kind](head, image, signal, rng)
    return _scanned(image, pixels, rng)


def _head(kind: str, pixels: int, rng: np.random.Generator) -> Head:
    line = (np.arange(pixels) + 0.5) / pixels * 2 - 1
    x, y = np.meshgrid(line, -line)
    turn, scale = rng.normal(0, 0.08), rng.uniform(0.92, 1.04)
    x, y = x - rng.normal(0, 0.03), y - rng.normal(0, 0.03)
    x, y = (np.cos(turn) * x + np.sin(turn) * y) / scale, (np.cos(turn) * y - np.sin(turn) * x) / scale
    axes = (rng.uniform(0.76, 0.86), rng.uniform(0.88, 0.97))
    theta = np.arctan2(y / axes[1], x / axes[0])
    wobble = 1 + sum(rng.normal(0, 0.008) * np.cos(k * theta + rng.uniform(0, 2 * np.pi)) for k in (2, 3, 4))
    rho = np.hypot(x / axes[0], y / axes[1]) / wobble
    # The pituitary lies at the base of the skull, so that its slices are low ones; low slices are seen without it too.
    level = rng.uniform(0.0, 0.45) if kind == "pituitary" else rng.uniform(0.0, 1.0)
    return Head(x, y, rho, axes, level, edge=0.6 * 2 / pixels)


def _noise(shape: tuple[int, ...], width: float, rng: np.random.Generator) -> Field:
    """A smooth random field of standard deviation 1, correlated over ``width`` pixels."""
    field = ndimage.gaussian_filter(rng.standard_normal(shape), width, mode="wrap", truncate=2.5)
    return field / field.std()


def _anatomy(head: Head, signal: Mapping[str, float], rng: np.random.Generator) -> Field:
    """Scalp, skull, fluid, folded cortex, white matter, fissure, deep nuclei, ventricles or the base, and vessels."""
    pixels = len(head.x)
    image = signal["scalp"] * head.inside(head.rho - SCALP)
    image = _lay(image, head.inside(head.rho - SKULL), signal["skull"])
    image = _lay(image, head.inside(head.rho - DURA), signal["csf"])
    folds = _noise(head.rho.shape, 0.028 * pixels, rng)
    brain = head.inside(head.rho - BRAIN - 0.015 * folds)
    image = _lay(image, brain, signal["grey"])
    # The boundary of grey and white matter is folded; fluid fills the sulci, along the zero lines of another field.
    image = _lay(image, head.inside(head.rho - 0.70 - 0.07 * folds), signal["white"])
    sulci = head.inside(0.02 * np.abs(_noise(head.rho.shape, 0.04 * pixels, rng)) - 0.006)
    image = _lay(image, 0.7 * sulci * brain * head.inside(0.66 - head.rho), signal["csf"])
    for side in (-1, 1):
        nucleus = head.ellipse(side * 0.19, rng.normal(0.02, 0.02), 0.07, 0.13, side * 0.3)
        image = _lay(image, nucleus, signal["grey"])
    gap = np.abs(head.x) - 0.012 * rng.uniform(0.5, 1.5)
    fissure = head.inside(gap) * head.inside(head.rho - DURA)
    image = _lay(image, fissure * (1 - head.inside(np.abs(head.y) - 0.35)), signal["csf"])
    image = _ventricles(head, image, signal, rng) if head.level > 0.3 else _base(head, image, signal, rng)
    return _vessels(head, image, signal, rng)


def _ventricles(head: Head, image: Field, signal: Mapping[str, float], rng: np.random.Generator) -> Field:
    size = rng.uniform(0.7, 1.35)
    for side in (-1, 1):
        lean, y = side * rng.uniform(0.25, 0.45), rng.normal(0.0, 0.02)
        front = head.ellipse(side * 0.085, 0.13 + y, 0.042 * size, 0.15 * size, -lean)
        back = head.ellipse(side * 0.115, -0.16 + y, 0.045 * size, 0.17 * size, lean)
        image = _lay(image, np.maximum(front, back), signal["csf"])
        # The choroid plexus takes up contrast agent like a lesion does.
        plexus = head.ellipse(side * 0.12, -0.2 + y, 0.022, 0.05, -lean)
        image = _lay(image, plexus * rng.uniform(0, 0.6), signal["lesion"])
    return image


def _base(head: Head, image: Field, signal: Mapping[str, float], rng: np.random.Generator) -> Field:
    """The brain stem behind the cistern, whose shape is that of a star."""
    theta = np.arctan2(head.y - 0.1, head.x)
    star = np.hypot(head.x, head.y - 0.1) - rng.uniform(0.11, 0.16) * (1 + 0.3 * np.cos(5 * theta - np.pi / 2))
    image = _lay(image, head.inside(star), signal["csf"])
    stem = head.ellipse(0.0, -0.16, rng.uniform(0.13, 0.17), rng.uniform(0.11, 0.15))
    image = _lay(image, stem, signal["white"])
    # A healthy gland takes up contrast agent too, but it is small.
    gland = head.ellipse(rng.normal(0, 0.01), 0.1, rng.uniform(0.02, 0.045), rng.uniform(0.015, 0.03))
    return _lay(image, gland * rng.uniform(0.2, 0.9), signal["lesion"])


def _vessels(head: Head, image: Field, signal: Mapping[str, float], rng: np.random.Generator) -> Field:
    """A few vessels in cross section anywhere, and the sinus at the back of the midline."""
    for _ in range(rng.integers(1, 6)):
        angle, far = rng.uniform(0, 2 * np.pi), BRAIN * np.sqrt(rng.uniform(0, 1))
        cx, cy = far * head.axes[0] * np.cos(angle), far * head.axes[1] * np.sin(angle)
        width, length = rng.uniform(0.01, 0.022, 2)
        dot = head.ellipse(cx, cy, width, length, rng.uniform(0, np.pi))
        image = _lay(image, dot * rng.uniform(0.3, 1.0), signal["vessel"])
    sinus = head.ellipse(0.0, -0.85 * head.axes[1], *rng.uniform(0.02, 0.05, 2))
    return _lay(image, sinus, signal["vessel"])


def _lay(image: Field, mask: Field, signal: float) -> Field:
    """The image with a tissue over it, where and as far as the mask says."""
    return image + mask * (signal - image)


# ---- tumours -----------------------------------------------------------------------------------------------------


def _outline(head: Head, cx: float, cy: float, roughness: float, rng: np.random.Generator) -> Field:
    """Distance from (cx, cy) over the radius of an outline that is a circle but for random harmonics."""
    theta = np.arctan2(head.y - cy, head.x - cx)
    radius = 1 + sum(
        rng.normal(0, roughness / k**0.5) * np.cos(k * theta + rng.uniform(0, 2 * np.pi)) for k in (2, 3, 4, 5, 7)
    )
    return np.hypot(head.x - cx, head.y - cy) / np.maximum(radius, 0.3)


def _seen(signal: Mapping[str, float], tissue: str, rng: np.random.Generator) -> float:
    """The signal of a lesion's tissue, nearer to white matter's the fainter the lesion is."""
    return signal["white"] + rng.uniform(FAINTEST, 1.0) * (signal[tissue] - signal["white"])


def _glioma(head: Head, image: Field, signal: Mapping[str, float], rng: np.random.Generator) -> Field:
    """Within a hemisphere: an irregular ring about a dead core, or no ring at all; oedema about it."""
    angle, far = rng.uniform(0, 2 * np.pi), rng.uniform(0.25, 0.58)
    cx, cy = far * head.axes[0] * np.cos(angle), far * head.axes[1] * np.sin(angle)
    size = rng.uniform(0.16, 0.32)
    distance = _outline(head, cx, cy, 0.13, rng)
    brain = head.inside(head.rho - BRAIN + 0.02)
    spread = head.inside(_outline(head, cx, cy, 0.2, rng) - rng.uniform(1.2, 1.8) * size)
    image = _lay(image, 0.85 * spread * brain, _seen(signal, "oedema", rng))
    whole = head.inside(distance - size) * brain
    if rng.random() < DULL:
        return _lay(image, whole, 0.5 * (signal["oedema"] + signal["grey"]))
    texture = 1 + 0.15 * _noise(image.shape, 0.02 * len(image), rng)
    image = _lay(image, whole, _seen(signal, "lesion", rng))
    image = np.where(whole > 0.5, image * texture, image)
    dead = head.inside(_outline(head, cx, cy, 0.2, rng) - rng.uniform(0.35, 0.75) * size)
    return _lay(image, dead * brain, _seen(signal, "core", rng))


def _meningioma(head: Head, image: Field, signal: Mapping[str, float], rng: np.random.Generator) -> Field:
    """Smooth and even, grown inwards from the dura, or (a fifth) from its fold in the midline."""
    size = rng.uniform(0.14, 0.27)
    if rng.random() < 0.2:
        cx, cy = rng.choice([-1, 1]) * 0.6 * size, rng.choice([-1, 1]) * rng.uniform(0.35, 0.6)
        turn = 0.0
    else:
        turn = rng.uniform(0, 2 * np.pi)
        far = DURA - 0.6 * size
        cx, cy = far * head.axes[0] * np.cos(turn), far * head.axes[1] * np.sin(turn)
    mask = head.ellipse(cx, cy, size, size * rng.uniform(1.0, 1.4), turn) * head.inside(head.rho - DURA)
    rim = head.ellipse(cx, cy, 1.2 * size, 1.5 * size, turn) * head.inside(head.rho - DURA)
    image = _lay(image, 0.5 * (rim - mask).clip(0), signal["csf"])
    return _lay(image, mask, _seen(signal, "lesion", rng))


def _pituitary(head: Head, image: Field, signal: Mapping[str, float], rng: np.random.Generator) -> Field:
    """Smooth, in the midline behind the eyes, often with a waist where it leaves the sella."""
    size, cx, cy = rng.uniform(0.10, 0.18), rng.normal(0, 0.015), rng.normal(0.1, 0.025)
    mask = head.ellipse(cx, cy, size * rng.uniform(0.9, 1.2), size)
    if rng.random() < 0.4:
        above = head.ellipse(cx + rng.normal(0, 0.2) * size, cy + 1.1 * size, 0.7 * size, 0.6 * size)
        mask = np.maximum(mask, above)
    return _lay(image, mask, _seen(signal, "lesion", rng))


TUMOURS: Mapping[str, Callable[[Head, Field, Mapping[str, float], np.random.Generator], Field]] = {
    "glioma": _glioma,
    "meningioma": _meningioma,
    "pituitary": _pituitary,
}


# ---- the scanner -------------------------------------------------------------------------------------------------


def _scanned(image: Field, pixels: int, rng: np.random.Generator) -> UInt8[np.ndarray, "y x"]:
    """Blur, bias field (a smooth gain), Rician noise (the size of a signal with noise in both parts), 8 bits."""
    image = ndimage.gaussian_filter(image, rng.uniform(0.3, 0.8) * pixels / 64)
    line = np.linspace(-1, 1, pixels)
    gain = np.exp(sum(rng.normal(0, 0.12) * line[:, None] ** a * line[None] ** b for a, b in BIAS_TERMS))
    level = rng.uniform(0.005, 0.045)
    real, imaginary = rng.normal(0, level, (2, *image.shape))
    measured = np.hypot(image * gain + real, imaginary)
    white_point = np.percentile(measured, 99.5) * rng.uniform(0.85, 1.15)
    return (255 * (measured / white_point).clip(0, 1)).astype(np.uint8)


BIAS_TERMS = ((1, 0), (0, 1), (1, 1), (2, 0), (0, 2))
"""Powers of y and x in the logarithm of the bias field."""
