"""Colours and shapes: each variant keeps its own throughout, by its place in the study, and no two share both."""

COLOURS = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#8c6d31', '#7f7f7f')  # Okabe & Ito 2008
SHAPES = ('circle', 'square', 'triangle-up', 'diamond', 'cross', 'triangle-down', 'triangle-right')
DASHES = ((1, 0), (6, 3), (2, 2), (8, 3, 2, 3))  # of lines, for the samplers of a variant

_DRAWN = {
    'circle': '<circle cx="7" cy="7" r="4.6"/>',
    'square': '<rect x="2.8" y="2.8" width="8.4" height="8.4"/>',
    'triangle-up': '<path d="M7 1.8 12.4 11.6H1.6Z"/>',
    'diamond': '<path d="M7 1 12 7 7 13 2 7Z"/>',
    'cross': '<path d="M5.2 1.8h3.6v3.4h3.4v3.6H8.8v3.4H5.2V8.8H1.8V5.2h3.4Z"/>',
    'triangle-down': '<path d="M7 12.2 1.6 2.4H12.4Z"/>',
    'triangle-right': '<path d="M12.2 7 2.4 12.4V1.6Z"/>',
}


def colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]


def shape(index: int) -> str:
    """Seven shapes against eight colours: a pair comes again after fifty-six variants."""
    return SHAPES[index % len(SHAPES)]


def swatch(index: int) -> str:
    """The mark of a variant beside its name."""
    look = f'class="swatch" viewBox="0 0 14 14" aria-hidden="true" fill="{colour(index)}"'
    return f'<svg {look}>{_DRAWN[shape(index)]}</svg>'
