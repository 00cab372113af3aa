"""The sample catalogue: generated products with drawn pictures. Needs no download.

One title in three does not say the colour, so that only the picture knows it.
"""

import random

from querylife.catalog.reader import CatalogProduct
from querylife.catalog.sample_images import Colour, draw

COLOURS: dict[str, Colour] = {
    "Red": (200, 30, 40),
    "Blue": (40, 80, 190),
    "Navy Blue": (28, 36, 84),
    "Black": (34, 34, 38),
    "White": (244, 244, 242),
    "Green": (40, 130, 70),
    "Yellow": (240, 205, 50),
    "Pink": (240, 150, 180),
    "Brown": (116, 76, 48),
    "Grey": (140, 142, 148),
    "Purple": (112, 60, 140),
    "Orange": (236, 128, 40),
}

# figure: product type, what titles call it, for whom
KINDS: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "tshirt": ("Tshirts", ("T-shirt", "Round Neck Tee"), ("Men", "Women")),
    "shirt": ("Shirts", ("Shirt", "Slim Fit Shirt"), ("Men", "Women")),
    "dress": ("Dresses", ("Dress", "Midi Dress"), ("Women",)),
    "skirt": ("Skirts", ("Skirt", "Flared Skirt"), ("Women",)),
    "trousers": ("Trousers", ("Trousers", "Chinos"), ("Men", "Women")),
    "jeans": ("Jeans", ("Jeans", "Straight Fit Jeans"), ("Men", "Women")),
    "shorts": ("Shorts", ("Shorts", "Running Shorts"), ("Men", "Women")),
    "jacket": ("Jackets", ("Jacket", "Windcheater"), ("Men", "Women")),
    "sneakers": ("Casual Shoes", ("Sneakers", "Casual Shoes"), ("Men", "Women")),
    "heels": ("Heels", ("Heels", "Pumps"), ("Women",)),
    "sandals": ("Sandals", ("Sandals", "Floaters"), ("Men", "Women")),
    "handbag": ("Handbags", ("Handbag", "Tote"), ("Women",)),
    "backpack": ("Backpacks", ("Backpack", "Rucksack"), ("Unisex",)),
    "watch": ("Watches", ("Watch", "Analog Watch"), ("Men", "Women")),
    "sunglasses": ("Sunglasses", ("Sunglasses", "Wayfarers"), ("Unisex",)),
    "cap": ("Caps", ("Cap", "Baseball Cap"), ("Unisex",)),
    "belt": ("Belts", ("Belt", "Leather Belt"), ("Men",)),
    "tie": ("Ties", ("Tie", "Silk Tie"), ("Men",)),
    "socks": ("Socks", ("Socks", "Pack of 2 Socks"), ("Unisex",)),
    "scarf": ("Scarves", ("Scarf", "Stole"), ("Women",)),
}
BRANDS = ("Ardente", "Bluefern", "Corvane", "Dunmore", "Elowen", "Fairwick")
COLOURS_PER_KIND = 6


def drawn_products() -> list[CatalogProduct]:
    """The same 120 products on every call."""
    chance = random.Random(7)
    products = []
    for figure, (product_type, names, wearers) in KINDS.items():
        for position, colour in enumerate(chance.sample(sorted(COLOURS), COLOURS_PER_KIND)):
            said = colour if position % 6 not in (3, 4) else ""
            words = (chance.choice(BRANDS), chance.choice(wearers), said, chance.choice(names))
            products.append(
                CatalogProduct(
                    id=f"{figure}-{colour.lower().replace(' ', '-')}",
                    title=" ".join(word for word in words if word),
                    product_type=product_type,
                    image=draw(figure, COLOURS[colour]),
                )
            )
    return products
