"""Attacks: from a model, images and a budget to adversarial images. The evaluator, not the attack, decides success.

An attack is a frozen dataclass (`attack.Attack`); those that walk along a gradient do it with the one loop in
`engine`. `suite` knows them by name and makes of a name, a budget and a seed a `Trial`, which is what is evaluated and
whose fingerprint says which results may share a column.
"""
