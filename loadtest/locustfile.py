"""Who calls the server: shoppers, whoever indexes products, and whoever asks GenFilt. run.py gives it to Locust."""

from locust import task

from loadtest.bench.traffic import COLOURS, KINDS, samples
from loadtest.openloop import OpenLoopUser
from querylife_client import Product

PRODUCTS = [Product(sample.title, sample.image, sample.product_type) for sample in samples(64)]
POPULARITY = 1.1  # Zipf: the tenth query comes a tenth as often as the first


class Shopper(OpenLoopUser):
    """Asks what others ask too, and sometimes opens a page whose products must be scored."""

    def query(self) -> str:
        """A few queries are asked all the time, most of them hardly ever."""
        rank = int(self.random.paretovariate(POPULARITY))
        return f"{COLOURS[rank % 6]} {KINDS[rank // 6 % 6]} {rank // 36}"

    @task(9)
    def search(self) -> None:
        self.querylife.embed_queries([self.query()])

    @task(1)
    def open_page(self) -> None:
        self.querylife.score(self.query(), self.random.sample(PRODUCTS, 4))


class Indexer(OpenLoopUser):
    """Embeds products that are new or have changed."""

    @task
    def update(self) -> None:
        self.querylife.embed_products(self.random.sample(PRODUCTS, 4))


class Describer(OpenLoopUser):
    """Has GenFilt describe products by their titles."""

    @task
    def describe(self) -> None:
        titles = (product.title for product in self.random.sample(PRODUCTS, 2))
        self.querylife.describe([Product(title) for title in titles])
