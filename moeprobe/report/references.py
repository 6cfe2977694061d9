"""The works that moeprobe's methods rest on; a page lists those that its methods section names, and no others."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Work:
    """A publication: how it is cited in a sentence, and the whole reference."""

    cited: str
    reference: str


WORKS: dict[str, Work] = {
    "benjamini1995": Work(
        "Benjamini and Hochberg 1995",
        "Benjamini, Y. and Hochberg, Y. (1995). Controlling the false discovery rate: a practical and powerful "
        "approach to multiple testing. Journal of the Royal Statistical Society B 57, 289\u2013300. "
        "doi:10.1111/j.2517-6161.1995.tb02031.x",
    ),
    "freedman1983": Work(
        "Freedman and Lane 1983",
        "Freedman, D. and Lane, D. (1983). A nonstochastic interpretation of reported significance levels. Journal of "
        "Business & Economic Statistics 1, 292\u2013298. doi:10.1080/07350015.1983.10509354",
    ),
    "geiger2021": Work(
        "Geiger et al. 2021",
        "Geiger, A., Lu, H., Icard, T. and Potts, C. (2021). Causal abstractions of neural networks. Advances in "
        "Neural Information Processing Systems 34. arXiv:2106.02997",
    ),
    "hesterberg2015": Work(
        "Hesterberg 2015",
        "Hesterberg, T. C. (2015). What teachers should know about the bootstrap: resampling in the undergraduate "
        "statistics curriculum. The American Statistician 69, 371\u2013386. doi:10.1080/00031305.2015.1089789",
    ),
    "holm1979": Work(
        "Holm 1979",
        "Holm, S. (1979). A simple sequentially rejective multiple test procedure. Scandinavian Journal of Statistics "
        "6, 65\u201370.",
    ),
    "kitagawa1955": Work(
        "Kitagawa 1955",
        "Kitagawa, E. M. (1955). Components of a difference between two rates. Journal of the American Statistical "
        "Association 50, 1168\u20131194. doi:10.1080/01621459.1955.10501299",
    ),
    "kullback1951": Work(
        "Kullback and Leibler 1951",
        "Kullback, S. and Leibler, R. A. (1951). On information and sufficiency. Annals of Mathematical Statistics 22, "
        "79\u201386. doi:10.1214/aoms/1177729694",
    ),
    "lin1991": Work(
        "Lin 1991",
        "Lin, J. (1991). Divergence measures based on the Shannon entropy. IEEE Transactions on Information Theory 37, "
        "145\u2013151. doi:10.1109/18.61115",
    ),
    "mackinnon1985": Work(
        "MacKinnon and White 1985",
        "MacKinnon, J. G. and White, H. (1985). Some heteroskedasticity-consistent covariance matrix estimators with "
        "improved finite sample properties. Journal of Econometrics 29, 305\u2013325. "
        "doi:10.1016/0304-4076(85)90158-7",
    ),
    "mann1947": Work(
        "Mann and Whitney 1947",
        "Mann, H. B. and Whitney, D. R. (1947). On a test of whether one of two random variables is stochastically "
        "larger than the other. Annals of Mathematical Statistics 18, 50\u201360. doi:10.1214/aoms/1177730491",
    ),
    "mantel1959": Work(
        "Mantel and Haenszel 1959",
        "Mantel, N. and Haenszel, W. (1959). Statistical aspects of the analysis of data from retrospective studies of "
        "disease. Journal of the National Cancer Institute 22, 719\u2013748. doi:10.1093/jnci/22.4.719",
    ),
    "romano2005": Work(
        "Romano and Wolf 2005",
        "Romano, J. P. and Wolf, M. (2005). Exact and approximate stepdown methods for multiple hypothesis testing. "
        "Journal of the American Statistical Association 100, 94\u2013108. doi:10.1198/016214504000000539",
    ),
    "smyth2004": Work(
        "Smyth 2004",
        "Smyth, G. K. (2004). Linear models and empirical Bayes methods for assessing differential expression in "
        "microarray experiments. Statistical Applications in Genetics and Molecular Biology 3, article 3. "
        "doi:10.2202/1544-6115.1027",
    ),
    "stephens2017": Work(
        "Stephens 2017",
        "Stephens, M. (2017). False discovery rates: a new deal. Biostatistics 18, 275\u2013294. "
        "doi:10.1093/biostatistics/kxw041",
    ),
    "welch1947": Work(
        "Welch 1947",
        "Welch, B. L. (1947). The generalization of \u2018Student\u2019s\u2019 problem when several different "
        "population variances are involved. Biometrika 34, 28\u201335. doi:10.1093/biomet/34.1-2.28",
    ),
    "westfall1993": Work(
        "Westfall and Young 1993",
        "Westfall, P. H. and Young, S. S. (1993). Resampling-based multiple testing: examples and methods for p-value "
        "adjustment. Wiley, New York.",
    ),
    "yusuf1985": Work(
        "Yusuf et al. 1985",
        "Yusuf, S., Peto, R., Lewis, J., Collins, R. and Sleight, P. (1985). Beta blockade during and after myocardial "
        "infarction: an overview of the randomized trials. Progress in Cardiovascular Diseases 27, 335\u2013371. "
        "doi:10.1016/S0033-0620(85)80003-7",
    ),
}


def listed(keys: set[str]) -> list[tuple[str, Work]]:
    """The works of these keys in the order of their references."""
    return sorted(((key, WORKS[key]) for key in keys), key=lambda pair: pair[1].reference)
