"""Secure sums: members deal shares of their updates to some of them, who open nothing but sums.

    round r      deal      each member trains, and deals shares of its update to the holders
    round r + 1  attest    each holder says which shares it has, and proves that they are shares
    round r + 2  open      the holders publish sums of their shares; from enough of them the mean is found

Each of the three is a round as any other: committed, revealed, validated, certified. What differs is what
a member's update *is*. Read in this order: `field`, `decoding` (arithmetic), `grid` (floats and integers),
`seal`, `documents` (what travels), `holders`, `sets`, `steps` and `situation` (the three rounds, pure),
`past` (what the rounds before came to), and `driver`.
"""
