"""Class imbalance in convolutional networks (Buda, Maki, Mazurowski 2018, arXiv 1710.05381), and in text.

`study/` trains networks and checks the claims; `text` and `tasks` carry its question over to texts and to
merging, with `verdicts` over seeds; `command` is the door.
"""
