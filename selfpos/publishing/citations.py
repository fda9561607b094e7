"""What to cite for what was used: one place for all BibTeX entries."""

from __future__ import annotations

_ENTRIES: dict[str, str] = {
    "self-positioning": """@article{li2024improving,
  title = {Improving General Text Embedding Model: Tackling Task Conflict and Data Imbalance through Model Merging},
  author = {Li, Mingxin and Nie, Zhijie and Zhang, Yanzhao and Long, Dingkun and Zhang, Richong and Xie, Pengjun},
  journal = {arXiv preprint arXiv:2410.15035},
  year = {2024}
}""",
    "task-arithmetic": """@inproceedings{ilharco2023editing,
  title = {Editing Models with Task Arithmetic},
  author = {Ilharco, Gabriel and Ribeiro, Marco Tulio and Wortsman, Mitchell and Gururangan, Suchin and Schmidt, Ludwig and Hajishirzi, Hannaneh and Farhadi, Ali},
  booktitle = {International Conference on Learning Representations},
  year = {2023}
}""",
    "average": """@inproceedings{wortsman2022model,
  title = {Model soups: averaging weights of multiple fine-tuned models improves accuracy without increasing inference time},
  author = {Wortsman, Mitchell and Ilharco, Gabriel and Gadre, Samir Yitzhak and Roelofs, Rebecca and Gontijo-Lopes, Raphael and Morcos, Ari S. and Namkoong, Hongseok and Farhadi, Ali and Carmon, Yair and Kornblith, Simon and Schmidt, Ludwig},
  booktitle = {International Conference on Machine Learning},
  year = {2022}
}""",
    "slerp": """@inproceedings{shoemake1985animating,
  title = {Animating Rotation with Quaternion Curves},
  author = {Shoemake, Ken},
  booktitle = {Proceedings of the 12th Annual Conference on Computer Graphics and Interactive Techniques (SIGGRAPH)},
  pages = {245--254},
  year = {1985}
}""",
    "ties": """@inproceedings{yadav2023ties,
  title = {TIES-Merging: Resolving Interference When Merging Models},
  author = {Yadav, Prateek and Tam, Derek and Choshen, Leshem and Raffel, Colin and Bansal, Mohit},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2023}
}""",
    "dare": """@inproceedings{yu2024language,
  title = {Language Models are Super Mario: Absorbing Abilities from Homologous Models as a Free Lunch},
  author = {Yu, Le and Yu, Bowen and Yu, Haiyang and Huang, Fei and Li, Yongbin},
  booktitle = {International Conference on Machine Learning},
  year = {2024}
}""",
    "della": """@article{deep2024della,
  title = {DELLA-Merging: Reducing Interference in Model Merging through Magnitude-Based Sampling},
  author = {Deep, Pala Tej and Bhardwaj, Rishabh and Poria, Soujanya},
  journal = {arXiv preprint arXiv:2406.11617},
  year = {2024}
}""",
    "breadcrumbs": """@inproceedings{davari2024model,
  title = {Model Breadcrumbs: Scaling Multi-Task Model Merging with Sparse Masks},
  author = {Davari, MohammadReza and Belilovsky, Eugene},
  booktitle = {European Conference on Computer Vision},
  year = {2024}
}""",
    "model-stock": """@inproceedings{jang2024model,
  title = {Model Stock: All we need is just a few fine-tuned models},
  author = {Jang, Dong-Hwan and Yun, Sangdoo and Han, Dongyoon},
  booktitle = {European Conference on Computer Vision},
  year = {2024}
}""",
    "fisher": """@inproceedings{matena2022merging,
  title = {Merging Models with Fisher-Weighted Averaging},
  author = {Matena, Michael S. and Raffel, Colin A.},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2022}
}""",
    "regmean": """@inproceedings{jin2023dataless,
  title = {Dataless Knowledge Fusion by Merging Weights of Language Models},
  author = {Jin, Xisen and Ren, Xiang and Preotiuc-Pietro, Daniel and Cheng, Pengxiang},
  booktitle = {International Conference on Learning Representations},
  year = {2023}
}""",
    "adamerging": """@inproceedings{yang2024adamerging,
  title = {AdaMerging: Adaptive Model Merging for Multi-Task Learning},
  author = {Yang, Enneng and Wang, Zhenyi and Shen, Li and Liu, Shiwei and Guo, Guibing and Wang, Xingwei and Tao, Dacheng},
  booktitle = {International Conference on Learning Representations},
  year = {2024}
}""",
    "lm-cocktail": """@inproceedings{xiao2024lm,
  title = {LM-Cocktail: Resilient Tuning of Language Models via Model Merging},
  author = {Xiao, Shitao and Liu, Zheng and Zhang, Peitian and Xing, Xingrun},
  booktitle = {Findings of the Association for Computational Linguistics: ACL 2024},
  year = {2024}
}""",
    "tsv": """@inproceedings{gargiulo2025task,
  title = {Task Singular Vectors: Reducing Task Interference in Model Merging},
  author = {Gargiulo, Antonio Andrea and Crisostomi, Donato and Bucarelli, Maria Sofia and Scardapane, Simone and Silvestri, Fabrizio and Rodol{\\`a}, Emanuele},
  booktitle = {Proceedings of the Computer Vision and Pattern Recognition Conference},
  year = {2025}
}""",
    "iso": """@inproceedings{marczak2025no,
  title = {No Task Left Behind: Isotropic Model Merging with Common and Task-Specific Subspaces},
  author = {Marczak, Daniel and Magistri, Simone and Cygert, Sebastian and Twardowski, Bart{\\l}omiej and Bagdanov, Andrew D. and van de Weijer, Joost},
  booktitle = {International Conference on Machine Learning},
  year = {2025}
}""",
    "wudi": """@inproceedings{cheng2025whoever,
  title = {Whoever Started the Interference Should End It: Guiding Data-Free Model Merging via Task Vectors},
  author = {Cheng, Runxi and Xiong, Feng and Wei, Yongxian and Zhu, Wanyun and Yuan, Chun},
  booktitle = {International Conference on Machine Learning},
  year = {2025}
}""",
    "sce": """@article{wan2024fusechat,
  title = {FuseChat: Knowledge Fusion of Chat Models},
  author = {Wan, Fanqi and Zhong, Longguang and Yang, Ziyi and Chen, Ruijun and Quan, Xiaojun},
  journal = {arXiv preprint arXiv:2408.07990},
  year = {2024}
}""",
    "karcher": """@article{wang2026functionality,
  title = {Functionality-Oriented LLM Merging on the Fisher-Rao Manifold},
  author = {Wang, Jiayu and Ye, Zuojun and Yin, Wenpeng},
  journal = {arXiv preprint arXiv:2603.04972},
  year = {2026}
}""",
    "layer-wise": """@article{yang2024supermerge,
  title = {SuperMerge: An Approach For Gradient-Based Model Merging},
  author = {Yang, Haoyu and Zhang, Zheng and Sathe, Saket},
  journal = {arXiv preprint arXiv:2412.10416},
  year = {2024}
}""",
    "cma-es": """@article{hansen2016cma,
  title = {The CMA Evolution Strategy: A Tutorial},
  author = {Hansen, Nikolaus},
  journal = {arXiv preprint arXiv:1604.00772},
  year = {2016}
}""",
    "mergekit": """@inproceedings{goddard2024arcee,
  title = {Arcee's MergeKit: A Toolkit for Merging Large Language Models},
  author = {Goddard, Charles and Siriwardhana, Shamane and Ehghaghi, Malikeh and Meyers, Luke and Karpukhin, Vladimir and Benedict, Brian and McQuade, Mark and Solawetz, Jacob},
  booktitle = {Proceedings of the 2024 Conference on Empirical Methods in Natural Language Processing: Industry Track},
  year = {2024}
}""",
    "boom": """@article{zhang2026bagging,
  title = {Bagging-Based Model Merging for Robust General Text Embeddings},
  author = {Zhang, Hengran and Bi, Keping and Guo, Jiafeng and Zhang, Jiaming and Yang, Wenbo and Shi, Daiting and Cheng, Xueqi},
  journal = {arXiv preprint arXiv:2602.05787},
  year = {2026}
}""",
    "pcgrad": """@inproceedings{yu2020gradient,
  title = {Gradient Surgery for Multi-Task Learning},
  author = {Yu, Tianhe and Kumar, Saurabh and Gupta, Abhishek and Levine, Sergey and Hausman, Karol and Finn, Chelsea},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2020}
}""",
    "cosent": """@article{huang2024cosent,
  title = {CoSENT: Consistent Sentence Embedding via Similarity Ranking},
  author = {Huang, Xiang and Peng, Hao and Zou, Dongcheng and Liu, Zhiwei and Li, Jianxin and Liu, Kay and Wu, Jia and Su, Jianlin and Yu, Philip S.},
  journal = {IEEE/ACM Transactions on Audio, Speech, and Language Processing},
  year = {2024}
}""",
    "gradcache": """@inproceedings{gao2021scaling,
  title = {Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup},
  author = {Gao, Luyu and Zhang, Yunyi and Han, Jiawei and Callan, Jamie},
  booktitle = {Proceedings of the 6th Workshop on Representation Learning for NLP},
  year = {2021}
}""",
    "matryoshka": """@inproceedings{kusupati2022matryoshka,
  title = {Matryoshka Representation Learning},
  author = {Kusupati, Aditya and Bhatt, Gantavya and Rege, Aniket and Wallingford, Matthew and Sinha, Aditya and Ramanujan, Vivek and Howard-Snyder, William and Chen, Kaifeng and Kakade, Sham and Jain, Prateek and Farhadi, Ali},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2022}
}""",
    "lora": """@inproceedings{hu2022lora,
  title = {LoRA: Low-Rank Adaptation of Large Language Models},
  author = {Hu, Edward J. and Shen, Yelong and Wallis, Phillip and Allen-Zhu, Zeyuan and Li, Yuanzhi and Wang, Shean and Wang, Lu and Chen, Weizhu},
  booktitle = {International Conference on Learning Representations},
  year = {2022}
}""",
    "sentence-transformers": """@inproceedings{reimers2019sentence,
  title = {Sentence-BERT: Sentence Embeddings using Siamese BERT-Networks},
  author = {Reimers, Nils and Gurevych, Iryna},
  booktitle = {Proceedings of the 2019 Conference on Empirical Methods in Natural Language Processing},
  year = {2019}
}""",
    "mteb": """@inproceedings{muennighoff2023mteb,
  title = {MTEB: Massive Text Embedding Benchmark},
  author = {Muennighoff, Niklas and Tazi, Nouamane and Magne, Lo{\\"i}c and Reimers, Nils},
  booktitle = {Proceedings of the 17th Conference of the European Chapter of the Association for Computational Linguistics},
  year = {2023}
}""",
}
_SAME = {
    "linear": "average", "soup": "average", "norm-equalized": "self-positioning", "nuslerp": "mergekit", "fewshot": "lm-cocktail",
    "loss-softmax": "lm-cocktail",
}  # fmt: skip


def bibtex(*used: str | None) -> list[str]:
    """The entries for the methods and tools in `used`, each once, in order; what has no entry is passed over.

    A method that combines others is its parts joined by '-' (`dare-ties`), and is cited by each of them.
    """
    keys: list[str] = []
    for name in filter(None, used):
        known = _SAME.get(name, name)
        keys.extend([known] if known in _ENTRIES else [part for part in name.split("-") if part in _ENTRIES])
    return [_ENTRIES[key] for key in dict.fromkeys(keys)]
