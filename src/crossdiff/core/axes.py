"""The words for tensor axes, defined once, and the shapes that cross most function boundaries.

token     one position of a document, the same in every model of a pair (never a padding position)
model     one of the models compared; for a pair 0 is `base` and 1 is `tuned`
d_model   width of a model's residual stream
latent    one dictionary element; it has a code per token and a decoder direction per model
active    one (token, latent) entry whose code is not 0
document  one text of the corpus
"""

from jaxtyping import Float, Int
from torch import Tensor

Activations = Float[Tensor, "token model d_model"]
Code = Float[Tensor, "token latent"]
Directions = Float[Tensor, "latent model d_model"]
PerLatent = Float[Tensor, " latent"]
PerModel = Float[Tensor, " model"]
PerToken = Float[Tensor, " token"]
Bias = Float[Tensor, "model d_model"]
ActiveValues = Float[Tensor, " active"]
ActiveIndices = Int[Tensor, " active"]
