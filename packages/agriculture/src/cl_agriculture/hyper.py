"""Settings of the method's parts: plain numbers, standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cl_core.checks import OptionError, require_at_least, require_positive, require_share
from cl_core.commands.options import Options

__all__ = ["ClawsHyper", "MaskHyper", "MixtureHyper", "ViewHyper"]


@dataclass(frozen=True, kw_only=True)
class MaskHyper(Options):
    """How masks are made or read.

    Args:
        variant: Excess green of the channels' shares (`chromatic`), which the light's strength does
            not change, or of the channels as they are (`raw`).
        least_threshold: Otsu's threshold is raised to this; by default 0.05 (chromatic) or 8 (raw).
        most_threshold: And lowered to this; by default 0.30 or 60.
        min_component: Smaller connected pieces are dropped; a share of the image.
        clean: Drop specks, close gaps, fill holes.
        least_fraction: A mask that covers less is `empty`, and the whole image is used instead.
        most_fraction: One that covers more is `full`, likewise.
        suffix: Of mask files: `_mask` finds `a_mask.png` for `a.jpg`.
        invert: In mask files 0 is plant.
        plant_values: Values of a mask file that are plant; by default all but 0.
        missing: Where an image has no mask file, `stop`, or use the whole image and count it.
        turn: `none` if mask files are upright; `image` if they are turned as EXIF says of their
            images.
    """

    variant: Literal["chromatic", "raw"] = "chromatic"
    least_threshold: float | None = None
    most_threshold: float | None = None
    min_component: float = 0.001
    clean: bool = True
    least_fraction: float = 0.005
    most_fraction: float = 0.95
    suffix: str = ""
    invert: bool = False
    plant_values: tuple[int, ...] = ()
    missing: Literal["stop", "full"] = "stop"
    turn: Literal["none", "image"] = "none"

    def __post_init__(self) -> None:
        require_share(
            min_component=self.min_component,
            least_fraction=self.least_fraction,
            most_fraction=self.most_fraction,
        )
        low, high = self.bounds
        if low > high:
            raise OptionError(
                f"least_threshold must not pass most_threshold, got {low:g} and {high:g}"
            )
        if self.least_fraction >= self.most_fraction:
            raise OptionError(
                "least_fraction must be below most_fraction, got "
                f"{self.least_fraction:g} and {self.most_fraction:g}"
            )
        if self.invert and self.plant_values:
            raise OptionError("invert and plant_values exclude each other: give only one")

    @property
    def bounds(self) -> tuple[float, float]:
        """Least and largest threshold."""
        low, high = (0.05, 0.30) if self.variant == "chromatic" else (8.0, 60.0)
        return (
            low if self.least_threshold is None else self.least_threshold,
            high if self.most_threshold is None else self.most_threshold,
        )


@dataclass(frozen=True, kw_only=True)
class ViewHyper(Options):
    """How a training view is drawn from an image and its mask.

    Args:
        attention: `hard` replaces the background by `fill`; `soft` blends over the mask's blurred
            edge; `off` leaves it. `auto` is hard for the modes with a mask and off for the others.
        sigma: Spread in pixels of the view of the blur of `soft`.
        fill: What stands for the background: black (`zero`), or ImageNet's `mean`, which is 0 once
            normalised.
        background_p: Probability that a view keeps its background.
        least_scale: Least share of the image's area in a crop; the largest is all of it.
        turns: Turn by a random quarter.
        brightness: Factors of brightness, contrast and saturation lie within 1 +- this.
        hue: Largest turn of the colour circle, up to 0.5.
        jitter_p: Probability of the colour changes.
        grey_p: Probability of a grey view.
        blur_p: Probability of a blur, with a sigma of 0.1 to 2 pixels.
    """

    attention: Literal["auto", "hard", "soft", "off"] = "auto"
    sigma: float = 1.0
    fill: Literal["zero", "mean"] = "zero"
    background_p: float = 0.0
    least_scale: float = 0.4
    turns: bool = True
    brightness: float = 0.4
    hue: float = 0.05
    jitter_p: float = 0.8
    grey_p: float = 0.2
    blur_p: float = 0.2

    def __post_init__(self) -> None:
        require_positive(sigma=self.sigma, least_scale=self.least_scale)
        require_share(
            background_p=self.background_p,
            least_scale=self.least_scale,
            brightness=self.brightness,
            jitter_p=self.jitter_p,
            grey_p=self.grey_p,
            blur_p=self.blur_p,
        )
        if not 0 <= self.hue <= 0.5:
            raise OptionError(f"hue must lie between 0 and 0.5, got {self.hue}")


@dataclass(frozen=True, kw_only=True)
class ClawsHyper(Options):
    """The contrast.

    Args:
        temperature: Smaller is sharper; by default 0.1 where labels are used and 0.2 where not.
        dim: Width of the embedding, which only the loss sees.
        within: Weight of a second term that spreads each class (`within_class`) beside the mode's.
        spare_class: Mode `class_pair` leaves rows of the same class out of the denominator.
    """

    temperature: float | None = None
    dim: int = 64
    within: float = 0.0
    spare_class: bool = False

    def __post_init__(self) -> None:
        require_positive(temperature=self.temperature)
        require_at_least(1, dim=self.dim)
        require_at_least(0, within=self.within)


@dataclass(frozen=True, kw_only=True)
class MixtureHyper(Options):
    """How vectors become groups: PCA, then a mixture of Gaussians.

    Args:
        dimensions: Numbers kept of each vector by PCA; by default 16, or as many as there are.
        whiten: Scale them to variance 1, against stretched groups.
        covariance: Shape of the groups; `auto` compares all four by BIC.
        counts: Numbers of groups to compare; by default 2 to three times the number of classes (30
            without labels), as far as there are 5 images a dimension for each.
        starts: Starts of a fit, of which the best is kept.
        regularization: Added to the diagonal of a covariance, times the mean variance.
        tolerance: A fit ends when the mean log-likelihood rises by less.
        iterations: Most steps of a fit.
        sample: Rows that starts are tried on; a fit on more continues the best with all rows.
        quantile: Share of the training images that count as odd.
    """

    dimensions: int | None = None
    whiten: bool = False
    covariance: Literal["auto", "full", "tied", "diag", "spherical"] = "auto"
    counts: tuple[int, ...] = ()
    starts: int = 10
    regularization: float = 1e-4
    tolerance: float = 1e-3
    iterations: int = 300
    sample: int = 20_000
    quantile: float = 0.01

    def __post_init__(self) -> None:
        require_at_least(1, dimensions=self.dimensions, starts=self.starts)
        require_at_least(1, iterations=self.iterations)
        require_at_least(100, sample=self.sample)
        require_positive(regularization=self.regularization, tolerance=self.tolerance)
        if self.counts and min(self.counts) < 1:
            raise OptionError(f"counts must be at least 1, got {list(self.counts)}")
        if not 0 < self.quantile < 1:
            raise OptionError(f"quantile must lie between 0 and 1, got {self.quantile}")
