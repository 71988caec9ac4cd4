"""Evenbench: adversarial robustness, read class by class.

The way of the data, folder by folder:

    data        images by name, path or Hub id
    models      networks by name
    training    a recipe of five slots becomes a checkpoint
    attacks     adversarial images are proposed
    evaluation  they are judged, image by image
    outcomes    who survived what: the waist, where making ends and reading begins
    soundness   should the figures be believed?
    store       facts go in by transaction, numbers come out by query
    report      leaderboards, comparisons, figures, verdicts; no torch
    study       what is missing, and doing it
    cli         how one asks for all this

`api` is all that the file of a method or an attack imports; `conformance` is what it must keep. The folders stand on
`norms`, `losses`, `budget`, `randomness`, `fingerprint`, `verdict`, `files`, `registry` and `errors`. Each layer
imports only those below it (`.importlinter`).
"""
