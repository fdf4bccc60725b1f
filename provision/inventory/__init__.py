"""Which hosts there are: inventories from many sources, read into one small value, and patterns that pick from it.

`provision.inventory.sources.resolve` reads them; nothing here is imported unless an inventory is used.
"""
