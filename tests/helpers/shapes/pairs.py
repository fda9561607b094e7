"""Pairs of texts, and texts with labels."""

from __future__ import annotations

from tests.helpers.shapes.shape import Shape, lines, pairs, parquet, premises, table

NAMES = (
    "---\ndataset_info:\n  features:\n  - name: label\n    dtype:\n      class_label:\n        names:\n"
    "          '0': duplicate\n          '1': not_duplicate\n---\n"
)
NLI = ["entailment", "neutral", "contradiction"]
PAIRS = [
    Shape(
        "STS benchmark",
        "sts",
        {
            "a.tsv": table(
                ("genre", "score", "sentence1", "sentence2"), ("x", "0.0", 's"', "t"), ("x", "5.0", '"u', "v")
            )
        },
        [('s"', "t", 0.0), ('"u', "v", 1.0)],
        "`sentence1`, `sentence2`, `score`",
    ),
    Shape(
        "SICK",
        "sts",
        {"a.csv": "pair_ID,sentence_A,sentence_B,relatedness_score\n1,s,t,1\n2,u,v,5\n"},
        [("s", "t", 0.0), ("u", "v", 1.0)],
        columns={"sentence1": "sentence_A", "sentence2": "sentence_B"},
    ),
    Shape(
        "scores in words",
        "sts",
        {"a.jsonl": lines(*pairs(["high", "low"], label="score"))},
        "must hold numbers",
    ),
    Shape(
        "scores that are no number",
        "sts",
        {"a.jsonl": '{"sentence1": "s", "sentence2": "t", "score": NaN}\n' * 2},
        "not finite",
    ),
    Shape(
        "AllNLI",
        "pair-classification",
        {"a.parquet": parquet(premises([0, 1, 2]), label=NLI)},
        [("p", "h0", 1), ("p", "h2", 0)],
        "`premise`, `hypothesis`, `label`",
    ),
    Shape(
        "AllNLI as triplets",
        "retrieval",
        {"a.parquet": parquet(premises([0, 1, 2]), label=NLI)},
        [("p", "h0", "h2")],
    ),
    Shape(
        "names in another order",
        "sts",
        {"a.parquet": parquet(premises([0, 1, 2]), label=["contradiction", "entailment", "neutral"])},
        [("p", "h0", 0.0), ("p", "h1", 1.0), ("p", "h2", 0.5)],
    ),
    Shape(
        "inference labels in words",
        "sts",
        {
            "a.tsv": table(
                ("sentence1", "sentence2", "label"), ("p", "h", "ENTAILMENT"), ("p", "i", "CONTRADICTION")
            )
        },
        [("p", "h", 1.0), ("p", "i", 0.0)],
    ),
    Shape(
        "SNLI's own files",
        "pair-classification",
        {"a.jsonl": lines(*pairs(["entailment", "-", "contradiction"], label="gold_label"))},
        [("s0", "t0", 1), ("s2", "t2", 0)],
        "`sentence1`, `sentence2`, `gold_label`",
    ),
    Shape(
        "inference labels without names",
        "sts",
        {"a.jsonl": lines(*premises([0, 1, 2, -1]))},
        [("p", "h0", 1.0), ("p", "h1", 0.5), ("p", "h2", 0.0)],
        "0, 1, 2: entailment, neutral, contradiction",
    ),
    Shape(
        "RTE of GLUE, Parquet",
        "pair-classification",
        {"a.parquet": parquet(pairs([0, 1]), label=["entailment", "not_entailment"])},
        [("s0", "t0", 1), ("s1", "t1", 0)],
    ),
    Shape(
        "SciTail: entails and neutral",
        "pair-classification",
        {"a.tsv": table(("premise", "hypothesis", "label"), ("p", "h", "entails"), ("q", "i", "neutral"))},
        [("p", "h", 1), ("q", "i", 0)],
    ),
    Shape(
        "RTE of SuperGLUE",
        "pair-classification",
        {"a.jsonl": lines(*premises(["entailment", "not_entailment"]))},
        [("p", "h0", 1), ("p", "h1", 0)],
    ),
    Shape(
        "names in a README",
        "pair-classification",
        {"README.md": NAMES, "train.jsonl": lines(*pairs([0, 1]))},
        [("s0", "t0", 1), ("s1", "t1", 0)],
    ),
    Shape(
        "names in a README, numbers as text",
        "pair-classification",
        {"README.md": NAMES, "train.csv": "sentence1,sentence2,label\ns0,t0,0\ns1,t1,1\n"},
        [("s0", "t0", 1), ("s1", "t1", 0)],
    ),
    Shape(
        "inference labels 1 and 0 without names",
        "pair-classification",
        {"a.csv": "premise,hypothesis,label\np,h,1\nq,i,0\n"},
        "right and wrong to some, entailment first to others",
    ),
    Shape(
        "the same, with the columns named",
        "pair-classification",
        {"a.csv": "premise,hypothesis,label\np,h,1\nq,i,0\n"},
        [("p", "h", 1), ("q", "i", 0)],
        "1 is right",
        columns={"label": "label"},
    ),
    Shape(
        "the same, for sts",
        "sts",
        {"a.csv": "premise,hypothesis,label\np,h,1\nq,i,0\n"},
        [("p", "h", 1.0), ("q", "i", 0.0)],
        columns={"score": "label"},
    ),
    Shape(
        "Quora",
        "pair-classification",
        {"a.csv": "id,question1,question2,is_duplicate\n1,s,t,0\n2,u,v,1\n"},
        [("s", "t", 0), ("u", "v", 1)],
        "`question1`, `question2`, `is_duplicate`",
    ),
    Shape(
        "MRPC of GLUE",
        "pair-classification",
        {
            "a.tsv": table(
                ("Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"),
                ("1", "1", "2", "s", "t"),
                ("0", "3", "4", '"u', "v"),
            )
        },
        [("s", "t", 1), ('"u', "v", 0)],
    ),
    Shape(
        "pairs as MTEB has them",
        "pair-classification",
        {"a.jsonl": lines({"sent1": ["s", "u"], "sent2": ["t", "v"], "labels": [1, 0]})},
        [("s", "t", 1), ("u", "v", 0)],
        '`{"sent1": [ … ], "sent2": [ … ], "labels": [ … ]}`',
    ),
    Shape(
        "a test set that hides its labels",
        "pair-classification",
        {"a.parquet": parquet(pairs([-1, -1]), label=["not_equivalent", "equivalent"])},
        "has no label on any of 2 records|no usable records",
    ),
    Shape("labels 1 and -1", "pair-classification", {"a.jsonl": lines(*pairs([1, -1]))}, "found -1 beside 1"),
    Shape(
        "translations",
        "bitext",
        {
            "a.jsonl": lines(
                {"translation": {"de": "Haus", "en": "house"}}, {"translation": {"de": "Hund", "en": "dog"}}
            )
        },
        [("Haus", "house"), ("Hund", "dog")],
        '`{"translation": {"de": "Haus", "en": "house"}}`',
    ),
    Shape(
        "translations in two columns",
        "bitext",
        {"a.tsv": table(("english", "non_english"), ("house", "Haus"), ("dog", "Hund"))},
        [("house", "Haus"), ("dog", "Hund")],
    ),
    Shape(
        "summaries",
        "summarization",
        {
            "a.jsonl": lines(
                {"article": "long", "highlights": "short", "id": "1"},
                {"article": "old", "highlights": "new", "id": "2"},
            )
        },
        [("long", "short"), ("old", "new")],
        "`article`, `highlights`",
    ),
]
TEXTS = [
    {"text": "a", "label": "x"},
    {"text": "b", "label": "y"},
    {"text": "c", "label": "x"},
    {"text": "d", "label": "y"},
]
LABELLED = [("a", 0), ("b", 1), ("c", 0), ("d", 1)]
CLASSES = [
    Shape(
        "texts with a label",
        "classification",
        {"a.jsonl": lines(*TEXTS)},
        LABELLED,
        '`{"text": "a", "label": "x"}`',
    ),
    Shape(
        "SST-2 of GLUE",
        "classification",
        {"a.tsv": table(("sentence", "label"), ('a "', "0"), ('"b', "1"), ("c", "0"), ("d", "1"))},
        [('a "', 0), ('"b', 1), ("c", 0), ("d", 1)],
    ),
    Shape(
        "labels of the Hub",
        "classification",
        {"a.parquet": parquet([{"text": t, "label": n % 2} for n, t in enumerate("abcd")], label=["x", "y"])},
        LABELLED,
    ),
    Shape(
        "intents",
        "classification",
        {"a.csv": "utterance,intent\na,x\nb,y\nc,x\nd,y\n"},
        LABELLED,
        "`utterance`, `intent`",
    ),
    Shape(
        "records without a label",
        "classification",
        {"a.jsonl": lines(*TEXTS, {"text": "e", "label": None})},
        LABELLED,
        "dropped and counted",
    ),
    Shape(
        "several labels a text",
        "classification",
        {"a.jsonl": lines({"text": "a", "labels": ["x", "y"]}, {"text": "b", "labels": ["y"]})},
        "there is no task type for texts with several labels",
    ),
    Shape(
        "clusters as MTEB had them",
        "clustering",
        {"a.jsonl": lines({"sentences": ["a", "b", "c", "d"], "labels": ["x", "y", "x", "y"]})},
        LABELLED,
        '`{"sentences": [ … ], "labels": [ … ]}`',
    ),
    Shape(
        "a column called otherwise",
        "classification",
        {"a.jsonl": lines(*({"words": row["text"], "kind": row["label"]} for row in TEXTS))},
        LABELLED,
        "`--column text=words label=kind`",
        columns={"text": "words", "label": "kind"},
    ),
    Shape(
        "no column of a known name",
        "classification",
        {"a.jsonl": lines({"words": "a", "kind": "x"})},
        "accepted names are text: text or sentence",
    ),
]
