"""Where modules went when they moved into rooms."""

__all__ = ["MOVED"]

MOVED = {
    "simclr": "methods.simclr",
    "directclr": "methods.directclr",
    "moco": "methods.moco",
    "contrast": "methods.contrast",
    "projectors": "methods.projectors",
    "optimisation": "methods.optimisation",
    "hcsc_module": "hcsc.module",
    "prototypes": "hcsc.prototypes",
    "estimate": "hcsc.estimate",
    "cluster_tree": "hcsc.cluster_tree",
    "collapse_monitor": "collapse.monitor",
    "collapse_theory": "collapse.theory",
    "linear_run": "collapse.linear_run",
    "toy_studies": "collapse.toy_studies",
    "theory_figures": "collapse.theory_figures",
    "theory_pages": "collapse.theory_pages",
    "spectrum": "collapse.spectrum",
    "nuisance": "evaluation.nuisance",
}
