"""What the page says in words. What a run can measure is not here but in its tables."""

MADE_BY = (
    "Made by `scripts/quantization`. To change the words, edit `scripts/quantization_report`; to "
    "change the figures, run it again."
)

INTRODUCTION = """\
A recipe says how a model's fp32 graph becomes the artefact that is served. Each recipe has a gate:
an artefact is installed only when its vectors are at least that close to those of the fp32 graph.
A recipe may be built in several ways; of each engine the ways are tried from the fastest on until
one passes, and `embedserve pull` installs the fastest of those. `--recipe` and `--engine` choose
instead."""

RECIPES = {
    "int8": """\
Weights are stored as 8-bit integers and multiplied as such. On OpenVINO the inputs of most layers
are rounded with scales that were fixed beforehand over calibration texts; a smoothing moves
outliers from the inputs into the weights first. The second half of each feed-forward layer has
outliers that no fixed scale fits, so the second way rounds its inputs as they come, 128 features
at a time, and the third way does that everywhere, 64 at a time. On onnxruntime each token row gets
its own scale, in plain ONNX operators. Choose it for speed; it is what a pull tries first.""",
    "int8-precise": """\
Weights are 8-bit integers with a scale for each small block; inputs are rounded in blocks of 32
features (OpenVINO) or by the operator itself (onnxruntime). Slower than `int8` and closer to fp32.
Choose it when a model fails the gate of `int8`, or when vectors are compared with others made
in fp32.""",
    "bf16": """\
Weights are stored as 16-bit floats and multiplied in bfloat16, on OpenVINO and only on CPUs that
have that arithmetic. Choose it when nothing measurable may be lost and twice the size is no
matter.""",
    "fp32": """\
The graph as it was exported. The reference for all others, on both engines and on GPUs. Choose it
to compare, or where no other recipe passes.""",
    "fp16": """\
Weights and arithmetic in 16-bit floats, for GPUs (onnxruntime with CUDA). CPUs have no fast 16-bit
float arithmetic in onnxruntime, so it is not measured on this page.""",
    "fp16-tensorrt": """\
The graph as it was exported; TensorRT itself computes it in 16-bit floats. For EMBEDSERVE_DEVICE
`tensorrt` alone, and not measured on this page.""",
    "int4": """\
Weights are stored in 4 bits with a scale for each block of 32 (onnxruntime). It saves memory, not
time, and costs small models much: they have few weights to spread the loss over. Choose it for
large models alone, and read the card that the pull prints. A model that fails its gate is
installed only with `--accept-loss`.""",
    "int8-dynamic": """\
What optimum's quantizer makes: one scale for the whole batch of inputs, chosen anew for every
batch. A text's vector changes with its neighbours. It is here to be compared with, and a pull
takes it only by name.""",
}

READING = """\
- **Cosine, top-1, top-10.** Vectors of an artefact against those of the fp32 graph, over the
  {texts} reference texts that a pull measures: mean and lowest cosine, how often a text's nearest
  other text stays the same, and how many of its ten nearest do.
- **nDCG@10** is a retrieval test: SciFact's 5,183 documents and 300 test queries, title and text in
  one, cut at 256 tokens, searched exactly. Differences below about .003 are chance, not quality.
- **Tokens per second** are of all {cores} cores together, over token ids (tokenizing is left out
  for everyone): 256 texts of 16 tokens, 64 of 128, 32 of 256, or 244 of 8 to 250 tokens at once.
  Median of {rounds} rounds of {seconds:g} s. Each round starts every row in a new process (one file
  in one engine runs up to a quarter faster or slower from start to start, by where its memory came
  to lie) and times each once, so ratios between rows are steadier than the figures themselves.
- **Memory** is what a process holds that has loaded the artefact and run all lengths, with two
  malloc arenas as in the server; {empty:.0f} MB of it are Python and the measuring code, without
  engine and model.
- **Batch-invariant**: texts gave the same bits alone and among others of many lengths. What runs
  text by text has no neighbours, and a "yes" there says no more than that."""

RIVALS = """\
The last two rows are optimum's file in onnxruntime without this project's engine, as
sentence-transformers runs it: texts one by one, or sorted by length and in batches of 32 that are
padded to their longest text. Each was measured with one session of {cores} threads and with {cores}
workers of one thread, and the faster one counts at each length. Memory is the smaller of both."""

BASE = """\
A model of BERT-base's shape (12 layers, 768 features, 30,522 words, {parameters:.0f} million
parameters) with random weights, which have no fidelity but the real size and speed. Texts of 128
tokens, all {cores} cores."""

ARITHMETIC = """\
**Arithmetic, not measurement**, but for the first two rows, which repeat the tables above. File:
bytes for each parameter of the tables (words, positions) and of the layers, solved from the two
measured models for each recipe. Memory: on the line through the two models' memory by file size.
Speed at 128 tokens: that of the BERT-base model, by the floating-point operations for each token.
Large vocabularies cost memory and no time."""

LOST = """\
Figures from when the recipes were made, on a CPU of the same class; the script does not repeat
them. Cosines are mean / lowest over the reference texts.

- **Searching the strength of the smoothing layer by layer** overfits the calibration texts: the
  lowest cosine fell from .997 to .991. One strength for all layers of a kind stays.
- **Widening the calibrated ranges** by 1.1 to 1.25, as room for outliers, loses .0001 to .0003: the
  coarser steps cost every text more than the clipping costs a few.
- **Narrowing layers dynamic in the first third of the layers only**, the others with fixed scales:
  .99875 / .99677, nDCG@10 .6423, in the same run no faster on mixed lengths (38.5 against 39.2
  thousand tokens/s), and 26 MB more memory.
- **Leaving the narrowing layers** (second half of the feed-forward) **in bf16** instead of dynamic
  int8: .99934 / .99828, as faithful and about 8 % slower.
- **Dynamic groups of 64 instead of 128** for the narrowing layers: .99914 / .99745 against
  .99911 / .99768, 5 % slower.
- **All weights with dynamic groups of 64** instead of fixed scales with dynamic narrowing layers:
  13 % slower. It stays as the third way, for models that fail the second."""
