"""What the words of a report mean, for readers who have not seen the code."""

GLOSSARY = (
    ("Names", "bundle, method. A bundle's name stands without brain_mri_ and _segmentation; own "
     "heatmap is the one that a network carries within itself. All networks were trained on "
     "labels of slices or pictures alone, and there is one training (seed) of each."),
    ("Rule (a)", "no mask was looked at. Own is the bundle's preset way from heatmap to mask; not "
     "snapped leaves out its last step, which moves the outline to the scan's edges; multi-Otsu "
     "takes another threshold; paper is the third paper's way, which three networks have."),
    ("Rule (b)", "masks of other patients (validation) chose the threshold, or trained the "
     "network."),
    ("Rule (c)", "the very masks that are reported on chose one level for all: no result, and no "
     "bound for rules that adapt to each case."),
    ("Dice, IoU", "overlap with the reference over a whole volume (or picture), every slice "
     "counted. [95 %]: bootstrap over patients (of pictures, groups)."),
    ("HD95, surface Dice", "95th percentile of the distance between the outlines, and the share of "
     "the outlines within 2 mm (of pictures, 2 pixels)."),
    ("AUPRC, pointing, energy", "of the heatmap before any threshold: average precision of its "
     "pixels; whether its highest pixel lies in the lesion; the share of it that does. A heatmap "
     "of noise has the lesion's share of all pixels."),
    ("Random weights", "the same method on a network that has learnt nothing, on the slices that "
     "the trained network lets through, with the same steps to the mask."),
    ("p", "Wilcoxon's signed-rank test over patients (groups), adjusted for many rows by Holm's "
     "method."),
    ("Within tenths", "AUROC among slices of the same tenth of the stack, so that knowing where "
     "tumours lie is no help."),
    ("Calibration error", "how far probabilities are from rates (ECE, 0 is best)."),
    ("Memory", "what explaining the first case takes at most beside the network."),
)  # fmt: skip
"""(term, meaning)."""
