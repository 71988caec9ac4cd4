"""Images by name.

load                     a name, a path or an id of the Hub to `Images`
images, source           images; their name, to be loaded elsewhere
digits, cards            data sets that have a name here; a new one is a card
hub, parquet, folder     where the others lie
splits, decode, cache    which file is of which split; pictures to pixels; pixels kept on disk
"""
