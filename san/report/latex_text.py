r"""Text for LaTeX: what comes from a name or a record compiles, and shows what was meant."""

import unicodedata

from san.runtime.formatting import printable

# Commands of LaTeX for combining characters of Unicode.
ACCENTS = {
    "\N{COMBINING GRAVE ACCENT}": "`",
    "\N{COMBINING ACUTE ACCENT}": "'",
    "\N{COMBINING CIRCUMFLEX ACCENT}": "^",
    "\N{COMBINING TILDE}": "~",
    "\N{COMBINING MACRON}": "=",
    "\N{COMBINING BREVE}": "u ",
    "\N{COMBINING DOT ABOVE}": ".",
    "\N{COMBINING DIAERESIS}": '"',
    "\N{COMBINING RING ABOVE}": "r ",
    "\N{COMBINING DOUBLE ACUTE ACCENT}": "H ",
    "\N{COMBINING CARON}": "v ",
    "\N{COMBINING CEDILLA}": "c ",
}
# All of these are in LaTeX itself. Marks are of the mathematical fonts: fonts of text lack some of
# them, or have them as bitmaps.
_SYMBOLS = {
    "\\": r"$\backslash$",
    "{": r"\{",
    "}": r"\}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "$": r"$\mathdollar$",
    "_": r"\_",
    "%": r"\%",
    "&": r"\&",
    "#": r"\#",
    "<": "$<$",
    ">": "$>$",
    "|": "$|$",
    "*": r"$\ast$",
    "[": "{[}",  # behind a line break or a command it would open an option
    "]": "{]}",
    "`": "{`}",  # joins no ? or ! before it
    '"': "''",
    "\N{NO-BREAK SPACE}": "~",
    "†": r"$\dagger$",
    "‡": r"$\ddagger$",
    "§": r"$\mathsection$",
    "¶": r"$\mathparagraph$",
    "‖": r"$\|$",
    "◦": r"$\circ$",
    "◇": r"$\diamond$",
    "∅": r"$\emptyset$",
    "≠": r"$\neq$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "≈": r"$\approx$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "−": "$-$",
    "°": r"$^\circ$",
    "∞": r"$\infty$",
    "→": r"$\rightarrow$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "–": "--",
    "—": "---",
    "‘": "{`}",
    "’": "'",
    "“": "``",
    "”": "''",
    "…": r"\dots{}",
    "ß": r"\ss{}",
    "æ": r"\ae{}",
    "Æ": r"\AE{}",
    "œ": r"\oe{}",
    "Œ": r"\OE{}",
    "ø": r"\o{}",
    "Ø": r"\O{}",
    "ł": r"\l{}",
    "Ł": r"\L{}",
    "ı": r"\i{}",
    "\N{MICRO SIGN}": r"$\mu$",
}
# Capitals that look like Latin ones, and omicron, have no command.
_GREEK = {
    "αβγδεζηθικλμνξ": "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi",
    "πρσςτυφχψω": "pi rho sigma varsigma tau upsilon phi chi psi omega",
    "ΓΔΘΛΞΠΣΥΦΨΩ": "Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega",
}


def escape_latex(text: str) -> str:
    """Return text as LaTeX in ASCII, whatever the encoding of the document and its fonts.

    A character that pdflatex does not know becomes its number in Unicode.
    """
    composed = unicodedata.normalize("NFC", text)
    return "".join(_write_character(character) for character in composed)


def command(name: str, *arguments: object) -> str:
    r"""Return a command of LaTeX: `\name{a}{b}`. Arguments are LaTeX already."""
    return f"\\{name}" + "".join(f"{{{argument}}}" for argument in arguments)


def escape_comment(text: str) -> str:
    """Return text that stays in the one line of a comment."""
    return "% " + printable(" ".join(text.split()))


def is_known(character: str) -> bool:
    """Return whether pdflatex knows a character, or has a command for it."""
    return _find_command(character) is not None


def _write_character(character: str) -> str:
    command = _find_command(character)
    return f"{{[}}U+{ord(character):04X}{{]}}" if command is None else command


def _find_command(character: str) -> str | None:
    """Return a character as LaTeX; None where there is nothing for it."""
    if character in _SYMBOLS:
        return _SYMBOLS[character]
    for letters, commands in _GREEK.items():
        if character in letters:
            return rf"$\{commands.split()[letters.index(character)]}$"
    if character.isspace():
        return " "
    letter, *accents = list(unicodedata.normalize("NFD", character))
    if not (letter.isascii() and letter.isprintable()):
        return None
    for accent in accents:
        if accent not in ACCENTS:
            return None
        letter = rf"{{\{ACCENTS[accent]}{letter}}}"
    return letter
