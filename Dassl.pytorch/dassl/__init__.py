"""Training engine with the public interface of the Dassl toolbox (0.6.3), written for current PyTorch.

Knows nothing of CLIP, of prompt learning or of any method: registries, configuration, data, engine, optimisation,
evaluation. Importing it touches neither `logging`, nor `sys.stdout`, nor a CUDA device.
"""

__version__ = "0.6.3"
