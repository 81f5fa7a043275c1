from genbench.api import Run as Run
from genbench.api import evaluate as evaluate
from genbench.api import load_run as load_run
from genbench.api import train as train

__version__: str
