"""Tables of words and numbers in text, read and written exactly as Python's own conversions do."""

import numpy as np

from gmcore.kernels.compile import exact_jit, jit

SPACE, TAB, NEW_LINE, RETURN, PLUS, MINUS, POINT, ZERO = 32, 9, 10, 13, 43, 45, 46, 48
LARGEST_EXACT = 1 << 53
"""Integers up to here are float64 numbers, and so are powers of ten up to 22: their quotient is rounded correctly."""
LARGEST_POWER = 22
POWERS = np.array([10.0**k for k in range(LARGEST_POWER + 1)])
WIDTH = 16
"""Of a number that is written: %16.8f."""
LARGEST_WRITTEN = 1e6


@jit
def _is_space(character):
    return character == SPACE or character == TAB or character == RETURN


@exact_jit
def split_rows(text, words):
    """Find the words of a table; returns the number of rows, or -1 if a row has another number of words.

    text (n,) uint8, every row ends with a new line; words (n_rows, n_columns, 2) int64: start and end of each word.
    -1 is also returned for other characters than printable ASCII, tabs and ends of lines.
    """
    n_rows, n_columns = words.shape[0], words.shape[1]
    row = column = at = 0
    while at < text.size:
        character = text[at]
        if _is_space(character):
            at += 1
        elif character == NEW_LINE:
            if column != n_columns:
                return -1
            row, column = row + 1, 0
            at += 1
        else:
            if row == n_rows or column == n_columns:
                return -1
            words[row, column, 0] = at
            while at < text.size and text[at] > SPACE:
                if text[at] > 126:
                    return -1
                at += 1
            words[row, column, 1] = at
            column += 1
            if at < text.size and not _is_space(text[at]) and text[at] != NEW_LINE:
                return -1
    return row if column == 0 else -1


@exact_jit
def parse_numbers(text, words, values, known):
    """Convert words to numbers; those of up to 15 digits or so, which division rounds correctly.

    text (n,) uint8; words (n_words, 2) int64; values (n_words,) float64; known (n_words,) bool: whether the word is a
    decimal number that could be converted. Others are left to Python.
    """
    for k in range(words.shape[0]):
        at, end = words[k, 0], words[k, 1]
        negative = text[at] == MINUS
        if negative or text[at] == PLUS:
            at += 1
        mantissa, power, digits, known[k] = np.int64(0), 0, 0, False
        after_point = False
        while at < end:
            character = text[at]
            if character == POINT and not after_point:
                after_point = True
            elif ZERO <= character <= ZERO + 9:
                if mantissa > LARGEST_EXACT // 10 - 1:
                    break
                mantissa = mantissa * 10 + (character - ZERO)
                digits += 1
                power -= after_point
            else:
                break
            at += 1
        if digits == 0:
            continue
        if at < end and (text[at] == 69 or text[at] == 101):  # E, e
            at += 1
            down = at < end and text[at] == MINUS
            if at < end and (down or text[at] == PLUS):
                at += 1
            exponent, n = 0, 0
            while at < end and ZERO <= text[at] <= ZERO + 9 and n < 3:
                exponent = exponent * 10 + (text[at] - ZERO)
                n += 1
                at += 1
            if n == 0:
                continue
            power += -exponent if down else exponent
        if at < end or power > LARGEST_POWER or power < -LARGEST_POWER:
            continue
        value = np.float64(mantissa)
        value = value * POWERS[power] if power >= 0 else value / POWERS[-power]
        values[k] = -value if negative else value
        known[k] = True


@exact_jit
def _hundred_millionths(size):
    """Nearest integer to 1e8 size, as decimal conversion rounds it: of the exact product, ties to even."""
    product = size * 1e8
    upper = size * 134217729.0  # Veltkamp's split: both halves times 1e8, which has 19 bits, are exact
    upper = upper - (upper - size)
    rest = (upper * 1e8 - product) + (size - upper) * 1e8
    below = np.floor(product)
    part = product - below
    whole = np.int64(below)
    if part > 0.5 or (part == 0.5 and (rest > 0.0 or (rest == 0.0 and whole % 2 == 1))):
        whole += 1
    return whole


@exact_jit
def write_rows(names, values, text):
    """Write a table, `%-2s` and then ` %16.8f` for each number; returns whether it could.

    names (n_rows, 2) uint8; values (n_rows, n_columns) float64; text (n_rows, 3 + 17 n_columns) uint8. Numbers of 1e6
    and more, and those that are not finite, are left to Python.
    """
    n_columns = values.shape[1]
    for row in range(values.shape[0]):
        text[row, 0], text[row, 1] = names[row, 0], names[row, 1]
        for column in range(n_columns):
            value = values[row, column]
            if not abs(value) < LARGEST_WRITTEN:
                return False
            first = 2 + (WIDTH + 1) * column
            at = first + WIDTH
            whole = _hundred_millionths(abs(value))
            n = 0
            while n < 9 or whole > 0:
                if n == 8:
                    text[row, at] = POINT
                    at -= 1
                text[row, at] = ZERO + whole % 10
                whole //= 10
                at -= 1
                n += 1
            if np.signbit(value):
                text[row, at] = MINUS
                at -= 1
            while at >= first:
                text[row, at] = SPACE
                at -= 1
        text[row, 2 + (WIDTH + 1) * n_columns] = NEW_LINE
    return True
