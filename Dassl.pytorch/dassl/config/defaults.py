"""The default configuration. One default, one comment, one meaning a key; units stand in the comment.

Methods add their own nodes (`TRAINER.<METHOD>`, `DATASET.SUBSAMPLE_CLASSES`) in the project's `extend_cfg`.
"""

from yacs.config import CfgNode as CN

_C = CN()

_C.VERSION = 1  # of this tree
_C.OUTPUT_DIR = "./output"  # folder of the run: log, metrics, checkpoints
_C.RESUME = ""  # folder of an earlier run to continue from; "": the output folder itself, if it holds one
_C.SEED = -1  # of Python, NumPy, torch and the data order; negative: not seeded
_C.DEVICE = "auto"  # "auto" (cuda, else mps, else cpu) | "cuda" | "mps" | "cpu"
_C.CUDA_GRAPH = False  # CLIP methods on one GPU: steps as CUDA graphs, the same numbers sooner (docs/speed.md)
_C.USE_CUDA = True  # False forbids CUDA whatever DEVICE says
_C.VERBOSE = True  # print what is being built

# ---- what is done to an image
_C.INPUT = CN()
_C.INPUT.SIZE = (224, 224)  # height, width in pixels
_C.INPUT.INTERPOLATION = "bilinear"  # of resizing: "bilinear" | "bicubic" | "nearest"
_C.INPUT.TRANSFORMS = ()  # names of `dassl.data.transforms.AVAI_CHOICES`; they run in one fixed order
_C.INPUT.NO_TRANSFORM = False  # True: no transforms at all, the data set yields PIL images
_C.INPUT.ON_ERROR = "stop"  # training image that cannot be read: "stop" | "replace" (by another of its class)
_C.INPUT.PIXEL_MEAN = [0.485, 0.456, 0.406]  # subtracted by "normalize", RGB in [0, 1] (ImageNet)
_C.INPUT.PIXEL_STD = [0.229, 0.224, 0.225]  # divided by in "normalize", RGB in [0, 1] (ImageNet)
_C.INPUT.CROP_PADDING = 4  # "random_crop": pixels added on each side first
_C.INPUT.RRCROP_SCALE = (0.08, 1.0)  # "random_resized_crop": range of the crop's share of the area
_C.INPUT.CUTOUT_N = 1  # "cutout": squares an image
_C.INPUT.CUTOUT_LEN = 16  # "cutout": side of a square in pixels
_C.INPUT.GN_MEAN = 0.0  # "gaussian_noise": mean, in units of the normalised image
_C.INPUT.GN_STD = 0.15  # "gaussian_noise": standard deviation, same units
_C.INPUT.RANDAUGMENT_N = 2  # "randaugment*": operations an image
_C.INPUT.RANDAUGMENT_M = 10  # "randaugment": magnitude, 0..30
_C.INPUT.COLORJITTER_B = 0.4  # "colorjitter": brightness factor in 1 ± this
_C.INPUT.COLORJITTER_C = 0.4  # "colorjitter": contrast factor in 1 ± this
_C.INPUT.COLORJITTER_S = 0.4  # "colorjitter": saturation factor in 1 ± this
_C.INPUT.COLORJITTER_H = 0.1  # "colorjitter": hue shift in ± this, in turns (0..0.5)
_C.INPUT.RGS_P = 0.2  # "randomgrayscale": probability
_C.INPUT.GB_P = 0.5  # "gaussian_blur": probability
_C.INPUT.GB_K = 21  # "gaussian_blur": kernel size in pixels, odd

# ---- which data
_C.DATASET = CN()
_C.DATASET.ROOT = ""  # folder that holds the folders of the data sets
_C.DATASET.NAME = ""  # registered name
_C.DATASET.SOURCE_DOMAINS = ()  # domains to train on (domain adaptation and generalisation)
_C.DATASET.TARGET_DOMAINS = ()  # domains to test on
_C.DATASET.NUM_LABELED = -1  # labelled images in all (semi-supervised learning); negative: all
_C.DATASET.NUM_SHOTS = -1  # training images a class; below 1: all
_C.DATASET.VAL_PERCENT = 0.1  # share of the training images that validates, where a data set has no own split
_C.DATASET.STL10_FOLD = -1  # fold of STL-10's labelled images, 0..9; negative: all
_C.DATASET.CIFAR_C_TYPE = ""  # corruption of CIFAR-10-C / CIFAR-100-C
_C.DATASET.CIFAR_C_LEVEL = 1  # its strength, 1..5
_C.DATASET.ALL_AS_UNLABELED = False  # True: labelled images are also used as unlabelled ones

# ---- how it is loaded
_C.DATALOADER = CN()
_C.DATALOADER.NUM_WORKERS = 4  # loading processes a loader; 0: load in the main process. Changes no result
_C.DATALOADER.K_TRANSFORMS = 1  # training: augmented views an image
_C.DATALOADER.RETURN_IMG0 = False  # True: batches also hold the un-augmented image as "img0"
_C.DATALOADER.CACHE = ""  # methods on frozen image encoders: folder that keeps features (docs/cache.md); "": none
_C.DATALOADER.CACHE_DTYPE = "fp32"  # how they are stored, "fp32" (exact) | "fp16" (half the size)
_C.DATALOADER.CACHE_VIEWS = 0  # training: stored views an image, epoch e takes view e mod this; 0: training not cached
_C.DATALOADER.CACHE_LIMIT = 20.0  # GiB that the folder may take in all
_C.DATALOADER.TRAIN_X = CN()  # labelled images
_C.DATALOADER.TRAIN_X.SAMPLER = "RandomSampler"  # or Sequential-, RandomDomain-, SeqDomain-, RandomClassSampler
_C.DATALOADER.TRAIN_X.BATCH_SIZE = 32  # images
_C.DATALOADER.TRAIN_X.N_DOMAIN = 0  # RandomDomainSampler: domains a batch; 0: all
_C.DATALOADER.TRAIN_X.N_INS = 16  # RandomClassSampler: images a class in a batch
_C.DATALOADER.TRAIN_U = CN()  # unlabelled images
_C.DATALOADER.TRAIN_U.SAME_AS_X = True  # True: the keys of TRAIN_X count, the following are ignored
_C.DATALOADER.TRAIN_U.SAMPLER = "RandomSampler"  # as in TRAIN_X
_C.DATALOADER.TRAIN_U.BATCH_SIZE = 32  # images
_C.DATALOADER.TRAIN_U.N_DOMAIN = 0  # as in TRAIN_X
_C.DATALOADER.TRAIN_U.N_INS = 16  # as in TRAIN_X
_C.DATALOADER.TEST = CN()  # validation and test
_C.DATALOADER.TEST.SAMPLER = "SequentialSampler"  # as in TRAIN_X
_C.DATALOADER.TEST.BATCH_SIZE = 32  # images

# ---- the model of `SimpleNet`; CLIP methods read INIT_WEIGHTS (of their trained tensors), BACKBONE.NAME and COMPILE;
# SPT on a timm model also reads BACKBONE.PRETRAINED
_C.MODEL = CN()
_C.MODEL.INIT_WEIGHTS = ""  # checkpoint to start from
_C.MODEL.BACKBONE = CN()
_C.MODEL.BACKBONE.NAME = ""  # registered backbone, or a CLIP model: its name or a file of weights
_C.MODEL.BACKBONE.COMPILE = False  # CLIP methods: torch.compile for the blocks of both towers (docs/speed.md)
_C.MODEL.BACKBONE.PRETRAINED = True  # True: start from ImageNet weights
_C.MODEL.HEAD = CN()
_C.MODEL.HEAD.NAME = ""  # registered head between backbone and classifier; "": none
_C.MODEL.HEAD.HIDDEN_LAYERS = ()  # widths of its layers; (): no head
_C.MODEL.HEAD.ACTIVATION = "relu"  # "relu" | "leaky_relu"
_C.MODEL.HEAD.BN = True  # batch norm after each linear layer
_C.MODEL.HEAD.DROPOUT = 0.0  # probability

# ---- optimisation
_C.OPTIM = CN()
_C.OPTIM.NAME = "adam"  # "adam" | "amsgrad" | "sgd" | "rmsprop" | "radam" | "adamw"
_C.OPTIM.LR = 0.0003  # learning rate
_C.OPTIM.WEIGHT_DECAY = 5e-4  # of every parameter
_C.OPTIM.MOMENTUM = 0.9  # sgd, rmsprop
_C.OPTIM.SGD_DAMPNING = 0  # sgd: dampening of the momentum (the spelling is the family's)
_C.OPTIM.SGD_NESTEROV = False  # sgd: Nesterov's momentum
_C.OPTIM.RMSPROP_ALPHA = 0.99  # rmsprop: smoothing
_C.OPTIM.ADAM_BETA1 = 0.9  # adam, amsgrad, adamw, radam
_C.OPTIM.ADAM_BETA2 = 0.999  # the same
_C.OPTIM.STAGED_LR = False  # True: all layers but NEW_LAYERS learn at BASE_LR_MULT times the rate
_C.OPTIM.NEW_LAYERS = ()  # names of top-level children
_C.OPTIM.BASE_LR_MULT = 0.1  # factor
_C.OPTIM.LR_SCHEDULER = "single_step"  # "single_step" | "multi_step" | "cosine"
_C.OPTIM.STEPSIZE = (-1,)  # epochs; single_step takes the last item, not positive: MAX_EPOCH
_C.OPTIM.GAMMA = 0.1  # factor of a step
_C.OPTIM.MAX_EPOCH = 10  # epochs
_C.OPTIM.WARMUP_EPOCH = -1  # epochs of warm-up; not positive: none
_C.OPTIM.WARMUP_TYPE = "linear"  # "linear" | "constant"
_C.OPTIM.WARMUP_CONS_LR = 1e-5  # learning rate of constant warm-up
_C.OPTIM.WARMUP_MIN_LR = 1e-5  # learning rate of the first epoch of linear warm-up
_C.OPTIM.WARMUP_RECOUNT = True  # True: the main schedule starts at 0 after the warm-up

# ---- training
_C.TRAIN = CN()
_C.TRAIN.CHECKPOINT_FREQ = 0  # epochs between saved models; 0: only the last
_C.TRAIN.CHECKPOINT_SECONDS = 600  # seconds between resume states inside an epoch
_C.TRAIN.PRINT_FREQ = 10  # batches between progress lines
_C.TRAIN.COUNT_ITER = "train_x"  # TrainerXU: what an epoch's length is, "train_x" | "train_u" | "smaller_one"

# ---- evaluation
_C.TEST = CN()
_C.TEST.EVALUATOR = "Classification"  # registered name
_C.TEST.PER_CLASS_RESULT = False  # True: also print the accuracy of each class
_C.TEST.COMPUTE_CMAT = False  # True: save the confusion matrix to <OUTPUT_DIR>/cmat.pt
_C.TEST.NO_TEST = False  # True: no evaluation after (or in) training
_C.TEST.SPLIT = "test"  # "test" | "val"
# "released_best_val" takes the epoch that is best on the test images themselves, as some released codes do: its result
# is no estimate for other images.
_C.TEST.FINAL_MODEL = "last_step"  # weights of the final test: "last_step" | "best_val" | "released_best_val"

# ---- method
_C.TRAINER = CN()
_C.TRAINER.NAME = ""  # registered name
