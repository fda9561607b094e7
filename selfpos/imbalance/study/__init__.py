"""The study of class imbalance in CNNs.

`recipe` says what is trained; `grid` finds the units whose results are missing. A `unit` draws its training
sets (`sampling`), trains its `networks` by a method (`methods`, `trainer`, `heads`) and scores them
(`scoring`). `results` is the file of records, `analysis` and `claims` read it, `report` shows it.
"""
