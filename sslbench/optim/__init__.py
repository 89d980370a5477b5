"""ScaledAdam and Eden, the optimizer and learning rate of the Zipformer family."""

from sslbench.optim.eden import Eden
from sslbench.optim.scaled_adam import ScaledAdam

__all__ = ["Eden", "ScaledAdam"]
