// The clients in JavaScript: ollama, openai, LangChain.js and Chroma's embedding function.

import { readFileSync } from 'node:fs';

import { OllamaEmbeddingFunction } from '@chroma-core/ollama';
import { OllamaEmbeddings } from '@langchain/ollama';
import { OpenAIEmbeddings } from '@langchain/openai';
import { Ollama } from 'ollama';
import OpenAI from 'openai';

const url = process.env.CLIENTS_URL;
const model = 'all-minilm';
const unknown = 'no-such-model';
const scripts = ['Grüße aus Zürich', '東京は夜の七時', 'مرحبا بالعالم', '🙂', 'naïve café', ' ', 'x'];
const batch = [...scripts, ...Array.from({ length: 57 }, (_, n) => `Text number ${n} of a batch.`)];
const long = 'The quick brown fox jumps over the lazy dog. '.repeat(200);
const results = [];

const versionOf = (name) =>
  JSON.parse(readFileSync(`node_modules/${name}/package.json`, 'utf8')).version;

async function check(client, name, what, run) {
  let problem = '';
  try {
    await run();
  } catch (error) {
    problem = `${error.name}: ${error.message}`.slice(0, 300);
  }
  results.push({ client, version: versionOf(name), what, problem });
  console.error(`${client}: ${what}: ${problem || 'ok'}`);
}

function want(isMet, words) {
  if (!isMet) throw new Error(words);
}

async function plain(texts, more = {}) {
  const body = JSON.stringify({ model, input: texts, ...more });
  const reply = await fetch(`${url}/api/embed`, { method: 'POST', body });
  return (await reply.json()).embeddings;
}

async function same(vectors, texts, more = {}) {
  const wanted = await plain(texts, more);
  want(vectors.length === texts.length, `${vectors.length} vectors for ${texts.length} texts`);
  vectors.forEach((vector, i) => {
    const [ours, theirs] = [Float32Array.from(vector), Float32Array.from(wanted[i])];
    const isSame = ours.length === theirs.length && ours.every((x, j) => Object.is(x, theirs[j]));
    want(isSame, 'a vector differs from that of a plain call');
  });
}

async function fails(run, words) {
  let message = null;
  try {
    await run();
  } catch (error) {
    message = String(error.message);
  }
  want(message !== null, 'it raised no error');
  want(message.includes(words), `its error does not say '${words}': ${message}`);
}

async function embeds(client, name, embed, { cuts = true } = {}) {
  const known = (texts) => embed(model, texts);
  await check(client, name, 'one text', async () => same(await known(['hello']), ['hello']));
  await check(client, name, '64 texts, many scripts', async () => same(await known(batch), batch));
  if (cuts) {
    await check(client, name, 'a long text is cut', async () => same(await known([long]), [long]));
  } else {
    await check(client, name, 'a long text is refused', () =>
      fails(() => known([long]), 'context length'));
  }
  await check(client, name, 'unknown model', () =>
    fails(() => embed(unknown, ['a']), 'not found'));
}

async function checkOllama() {
  const client = new Ollama({ host: url });
  const on = (what, run) => check('ollama (JavaScript)', 'ollama', what, run);
  const embed = async (name, input) => (await client.embed({ model: name, input })).embeddings;
  await embeds('ollama (JavaScript)', 'ollama', embed);
  await on('truncate: false', () =>
    fails(() => client.embed({ model, input: [long], truncate: false }), 'context length'));
  await on('embeddings', async () =>
    same([(await client.embeddings({ model, prompt: 'a' })).embedding], ['a']));
  await on('list', async () =>
    want((await client.list()).models.some((one) => one.name === `${model}:latest`), 'another list'));
  await on('show', async () => want((await client.show({ model })).model_info, 'no model_info'));
  await on('ps', async () => want((await client.ps()).models[0].expires_at, 'no time'));
  await on('version', async () => want(/^\d+\.\d+\.\d+$/.test((await client.version()).version), '?'));
  await on('pull with progress', async () => {
    let last = null;
    for await (const step of await client.pull({ model, stream: true })) last = step.status;
    want(last === 'success', `the last step is ${last}`);
  });
  await on('copy', async () =>
    want((await client.copy({ source: model, destination: 'copied' })).status === 'success', 'no'));
  await on('create from', () => client.create({ model: 'made', from: model }));
  await on('delete', async () =>
    want((await client.delete({ model: 'copied' })).status === 'success', 'not deleted'));
  await on('delete of what was made', () => client.delete({ model: 'made' }));
  await on('unload', async () => {
    const reply = await client.generate({ model, prompt: '', keep_alive: 0 });
    want(reply.done_reason === 'unload', `done_reason is ${reply.done_reason}`);
  });
}

async function checkOpenai() {
  const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: 'none' });
  const embed = async (name, input) =>
    (await client.embeddings.create({ model: name, input })).data.map((row) => row.embedding);
  await embeds('openai (JavaScript)', 'openai', embed);
  const on = (what, run) => check('openai (JavaScript)', 'openai', what, run);
  await on('models.list', async () => {
    const ids = [];
    for await (const found of client.models.list()) ids.push(found.id);
    want(ids.includes(`${model}:latest`), `only ${ids}`);
  });
  await on('models.retrieve', async () =>
    want((await client.models.retrieve(model)).id === model, 'another id'));
}

async function checkLangchain() {
  // It would repeat what is refused for two minutes.
  const once = { baseUrl: url, maxRetries: 0 };
  const ollama = (name, more) => new OllamaEmbeddings({ model: name, ...once, ...more });
  const name = '@langchain/ollama';
  await embeds(name, name, (one, texts) => ollama(one).embedDocuments(texts), { cuts: false });
  await check(name, name, 'query', async () =>
    same([await ollama(model).embedQuery('a')], ['a']));
  await check(name, name, 'truncate: true', async () =>
    same(await ollama(model, { truncate: true }).embedDocuments([long]), [long]));
  const openai = (one, texts) =>
    new OpenAIEmbeddings({
      model: one,
      apiKey: 'none',
      maxRetries: 0,
      configuration: { baseURL: `${url}/v1` },
    }).embedDocuments(texts);
  await embeds('@langchain/openai', '@langchain/openai', openai);
}

async function checkChroma() {
  const embed = async (name, texts) => {
    const vectors = await new OllamaEmbeddingFunction({ url, model: name }).generate(texts);
    return vectors.map((vector) => Array.from(vector));
  };
  await embeds('@chroma-core/ollama', '@chroma-core/ollama', embed);
}

await checkOllama();
await checkOpenai();
await checkLangchain();
await checkChroma();
console.log(JSON.stringify(results));
