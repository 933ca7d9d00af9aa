"""Learn from corrected masks: from a bundle and what people corrected to the next bundle.

::

    learn        one training: read, start, hold out in turn, compare, publish
    bundle       what is learnt as a bundle, with its card
    held_out     Dice of corrected patients by weights that have not seen them
    versions     the learnt bundles: every version is kept, one is served
    fit          the training of one network, with checkpoints
    reading      scans to examples: pseudo-masks of the bundle, corrected masks
    examples, attribution_augmentation, folds
    scans        what is given
    status       how far a training is, in a file; one at a time
    settings     the options

Nothing in it knows of a server. Whoever calls it says which scans have a corrected mask.
"""
