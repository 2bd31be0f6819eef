"""What the page says in words. What a run can measure is not here but in its tables."""

MADE_BY = (
    "Made by `scripts/bench`. To change the words, edit `scripts/bench_report`; to change the "
    "figures, run it again."
)

INTRODUCTION = """\
How fast the server is, how much of that is lost between the engine and the client, and how long a
query waits while others use the server. All of it runs on one machine: clients, server and engine
share its cores."""

COMMANDS = """\
```bash
scripts/bench --data ../shared/data   # this page
scripts/bench                         # the same, with this project's own sources to ingest
scripts/bench --quick                 # one short round, printed
scripts/bench --again --peers FILE    # the page anew from the last figures, with others' beside
```"""

NOT_QUIET = """\
**Too much: these are figures of a busy machine, too low, and no verdict on the targets.**"""

READING = """\
- **Rounds.** Every figure is the median of its rounds ({rounds}). Each starts every process anew
  (one file in one engine runs up to a quarter faster or slower from start to start) and measures
  everything once. Ratios are taken within a round and their median is shown; so they need not be
  the ratio of the medians beside them. Rates are measured over about {seconds:g} s, latencies over
  {calls} calls.
- **Texts** are made of common words and have an exact number of tokens, special ones included.
- **Clients** are a process of their own with raw sockets: requests are whole bytes made beforehand,
  replies are read to their end and not parsed.
- **The cache is off** (`EMBEDSERVE_CACHE_BYTES=0`) wherever texts come again; only the section on
  the cache and ingestion run with the defaults."""

ENGINE = """\
Tokens per second of all cores together, without what texts are padded with. *Bare* are as many
threads as the scheduler has workers that call the engine on whole batches of up to {group:,}
tokens, put together beforehand, of one bucket each. *Scheduler* is the same texts in requests of
{request} through its queue, several in flight, on the same loaded graph in the same process."""

HTTP = """\
The whole server in the process of the engine measured above. Bulk is {clients} clients with
{texts} texts of {tokens} tokens a request, a query is one text of {query} tokens, all over
`/api/embed`. Beside bulk, one client sends query after query; beside ingestion, one client sends
{rate} a second while a job reads `{folder}` ({chunks:,.0f} chunks) into an empty index of a server
with its defaults."""

HOT = """\
Microseconds of the server's CPU time for each request, the system's share included, with vectors
that are ready: what reading the request, routing and writing the answer cost. *FastAPI* is the same
service behind the framework's default way: a pydantic model of the request and a `response_model`
of lists of floats. *Floor* is the same web server with an application that reads a request and
sends as many bytes, and nothing else."""

CACHE = """\
One text of {query} tokens, a server with its defaults: a text that was never asked for, and one
that was."""

TIME_OF_QUERY = """\
One query of {query} tokens on an idle machine, each part timed by itself, over and over. HTTP is
the round trip to the floor application of above. What is left is what the parts take longer when
they come one after another: each finds threads asleep and caches filled by the one before."""

TIME_OF_BULK = """\
One bulk request ({texts} texts of {tokens} tokens) while bulk saturates the server, in
milliseconds of one core. The parts were timed by themselves, and the whole is what the cores had
for each request; what is left is the client's share, memory traffic between the parts, and cores
that waited."""

ROOF = """\
A text of S tokens costs 24·L·h² + 4·S·h·L operations for each of its tokens (L layers of width h;
multiplications and additions counted one by one): the linear layers, and attention. The roof is
what the same engine reaches on a graph of nothing but large 8-bit products (`bench_report/roof.py`)
on all cores. Attention, normalization and activation functions are not 8-bit products, so
no encoder can reach all of it."""

PEERS = """\
Other servers and libraries with the same model, measured beside this one by a harness that is no
part of this repository; their JSON is shown with `--peers`."""

NO_PEERS = "Nothing was measured beside others in this run."

INGESTION = """\
`scripts/ingest_bench FOLDER --home HOME` measures it (`scripts/bench` does not): in turns in one
process, a job on an empty index and the engine alone on the distinct texts of that job, tokenized
beforehand. With `--apart N` the job gets sums over a table instead of the engine's vectors, and
the engine is measured on N of the texts: all that ingestion costs beside it, on a machine where a
large tree would keep the engine busy for hours.

The folder is PowerShell's documentation: 3,094 files, 33 MB, most of them in five versions. Two
cores *without* 8-bit dot products (Xeon, avx512f alone), quiet (load .5 before), one round:

```bash
scripts/ingest_bench ../shared/data/tree-powershell-docs --home HOME --rounds 1
```

| What | Figure |
|---|---|
| files, chunks, of which distinct and embedded | 3,094, 111,588, 44,034 |
| end to end | 570 s |
| tokens embedded, a second | 4,290,025, 7,527 |
| tokens a second, engine alone | 8,582 |
| **the job, of the engine alone** | **87.7 %** |
| processor time of the engine, of all | 88.0 % |
| of it engine, the server's other work, Chroma | 954, 92, 36 s |
| second run, nothing changed | .5 s |
| peak memory of all processes | 744 MiB |
| of it server, extraction, Chroma at their own peaks | 409, 83, 252 MiB |

**Memory is above the 600 MiB that are the aim.** The server holds 236 MiB once the model is loaded
(78 of them files of libraries), and 345 after the engine has run texts of all lengths: what
OpenVINO keeps to run in, whatever the capacity of its cache of shapes (0 to 50,000 make no
difference to memory here). Capping glibc's arenas changes nothing of that.

The same tree took 699 s before, 68 %: Chroma alone used 211 s in calls of some 60 rows, now 36 s
in calls of 1,000; and the client packed vectors number by number ([decisions.md](decisions.md)).

**On a CPU with VNNI the share is less**, and was not measured since: there the engine is several
times as fast and everything else is not. The last figure from one is 58 % on 503 of these files
(18,235 chunks, 5,689 distinct: engine 23.8 s of processor time, server with it 31.4 s, Chroma 9.4
s), from before all of these changes.

What earlier changes brought, on 60 of the files with sums in place of the engine, starts of
processes included:

| | before | after |
|---|---|---|
| rows of Chroma's graph | 1,999 | 947 |
| texts embedded, of 947 distinct | 1,071 | 947 |
| processor time, server | 3.3 s | 2.3 s |
| processor time, Chroma | .95 s | .26 s |

Near-duplicates cost little now: a text that an index holds is one row of Chroma, sections that
come again are not measured again, files that are read at once share what both hold, and the ids of
a chunk are those it had when its text was cut. Of what is left, tokenizing what is new and
Chroma's graph take most: an insert costs 1.5 ms at 41,000 rows, and grows with them. One text of
40 MB (199,449 chunks) takes 354 MiB in the server, 103 MiB in extraction and 280 MiB in Chroma.

### Long texts

Texts over 8 MiB are streamed. `python -m scripts.ingest_report.long_text --home HOME --mb 1000`
makes one whose passages repeat (`--form text`, `line` without a line end, or `csv`; `--kill` ends
the server by SIGKILL half way), ingests it by a server of its own, and asks for a sentence near
its end.

| | server | extraction |
|---|---|---|
| a text of 40 MB (199,449 chunks), before | 354 MiB | 103 MiB |
| 1 GB of text (1,421,202 chunks of 3,001 distinct passages), to the end | 286 MiB | 61 MiB |

The last row is `--mb 1000 --form text --kill`: killed by SIGKILL when half of it was staged, the
same job went on, ended as `succeeded`, and the query found the sentence at character 979,999,637.
Chroma had 58 MiB, and all processes together never more than 396 MiB. It took 61 minutes beside
other work that kept both cores busy, so its speed says nothing. What does not depend on the load:
reading takes about 60 s of processor time for 1 GB, and the commit 4 s for each 100,000 staged
chunks. The other two forms were read and cut whole, and ingested to the end at 30 MB only."""

LOST = """\
Figures from when it was tried; `scripts/bench` does not repeat them. More in
[decisions.md](decisions.md).

- **Waiting to fill a batch.** The scheduler never does: batches form because workers are busy.
- **One batch size for everything.** Batches of 256 tokens keep queries quick but lose 12 % on mixed
  lengths against 1,024; of 1,024 they make queries wait. Bulk runs in large ones while no query
  came for two seconds.
- **Another shape in every run**: OpenVINO spends .6 to .9 ms on each change, as long as a short
  query takes. A batch of seven run as four, two and one made 32 clients with short texts 37 %
  slower than runs that stay with one number of texts and one length.
- **A compiled graph for each shape** of short queries: 30 % faster, and 70 MB each.
- **Finer buckets** than about 20: more shapes cost what less padding saves.
- **Routes of a framework for embeddings.** A third of a short request's time went into routing,
  JSON and hops between threads; the embedding routes are plain ASGI now.
- **Waking the event loop for each request** costs about 20 microseconds of a worker; now it is
  woken once for all that finished meanwhile.
- **Query, key and value as one layer**, the attention's scale folded into the weights, pinned
  threads, two compiled copies with a thread each: no gain.
- **Attention fusions of onnxruntime**: 10 to 15 % slower on CPUs.
- **Memory-mapped SQLite**: resident memory grew with the catalog, and nothing got faster."""
