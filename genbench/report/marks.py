"""Colours and shapes. A variant's place in the study fixes both for the whole page, and no two variants share both."""

from html import escape

# After Okabe & Ito 2008, but darker: each has a contrast of 4.5 to the light backgrounds of the page.
COLOURS = ('#0067a3', '#b34a00', '#007a58', '#a8437c', '#8a6200', '#0b7285', '#6b4a1f', '#5c6470')
DARK = ('#4fa9e2', '#f2874a', '#2cc295', '#e59bc6', '#e9b23c', '#8fd3f4', '#c8a46e', '#a9b2bd')  # for dark backgrounds
SHAPES = ('circle', 'square', 'triangle-up', 'diamond', 'cross', 'triangle-down', 'triangle-right')
DASHES = ((1, 0), (6, 3), (2, 2), (8, 3, 2, 3))  # line dashes for the samplers of a variant

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
    """A colour as a variable of the page's style sheet, so that it follows the theme; see `on_paper`."""
    return f'var(--mark-{index % len(COLOURS)})'


def on_paper(text: str) -> str:
    """The colour that a text names, for a white background."""
    return COLOURS[int(text.removeprefix('var(--mark-').removesuffix(')'))] if text.startswith('var(--mark-') else text


def style() -> str:
    """The colours of both themes, for the style sheet."""

    def listed(colours: tuple[str, ...]) -> str:
        return ''.join(f'--mark-{index}:{value};' for index, value in enumerate(colours))

    dark = listed(DARK)
    return (f':root{{{listed(COLOURS)}}}'
            f"@media (prefers-color-scheme:dark){{:root:not([data-theme='light']){{{dark}}}}}"
            f":root[data-theme='dark']{{{dark}}}")  # fmt: skip


def shape(index: int) -> str:
    """With seven shapes and eight colours, a pair repeats after fifty-six variants."""
    return SHAPES[index % len(SHAPES)]


def swatch(index: int) -> str:
    """The mark of a variant next to its name."""
    look = f'class="swatch" viewBox="0 0 14 14" aria-hidden="true" fill="{colour(index)}"'
    return f'<svg {look}>{_DRAWN[shape(index)]}</svg>'


def listing(text: str, label: str) -> str:
    """Wrap content that may be wider than the page in an element that the keyboard can scroll."""
    return f'<pre tabindex="0" role="region" aria-label="{escape(label, quote=True)}">{escape(text)}</pre>'
