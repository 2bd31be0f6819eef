// Uses Open WebUI's page as a person does, takes pictures, and prints what it saw as JSON.
// It judges nothing: judge.py does. A step that fails is told with its error and a picture.
import { chromium } from 'playwright-core';

const { WEBUI_URL, BROWSER, PICTURES, INDEX, MODEL, TOOL_CALLER, UPLOAD, TOOLS_URL, KEY } =
  process.env;
const { QUESTION, FILE_QUESTION, ELSEWHERE, DESK, DESK_QUESTION } = process.env;
const [ADMIN, USER] = JSON.parse(process.env.PEOPLE).map((one) => (
  { ...one, password: 'of a test', profile_image_url: '' }));
const WAIT_MS = Number(process.env.WAIT_MS ?? 120_000); // two slow cores, four programs
const FLAGS = [
  '--headless', '--no-sandbox', '--disable-gpu', '--disable-background-networking',
  '--disable-component-update', '--disable-sync', '--no-first-run',
];

const browser = await chromium.launch({ executablePath: BROWSER, args: FLAGS });
const requested = new Set();
let context, page; // of whoever is signed in

const picture = (name, of = page) => of.screenshot({ path: `${PICTURES}/${name}.png` });

// Calls Open WebUI's own API with the session of the page.
const call = (path, method = 'GET', body = undefined) =>
  page.evaluate(
    async ([path, method, body]) => {
      const headers = { Authorization: `Bearer ${localStorage.token}` };
      if (body) headers['Content-Type'] = 'application/json';
      const reply = await fetch(path, { method, headers, body: body && JSON.stringify(body) });
      return { status: reply.status, body: await reply.json() };
    },
    [path, method, body],
  );

// Signs somebody up or in, in a browser of their own.
async function enter(way, person) {
  context = await browser.newContext({ viewport: { width: 1200, height: 760 } });
  context.setDefaultTimeout(WAIT_MS);
  context.on('request', (request) => requested.add(request.url()));
  page = await context.newPage();
  const reply = await context.request.post(`${WEBUI_URL}/api/v1/auths/${way}`, { data: person });
  const { token, role } = await reply.json();
  await page.goto(`${WEBUI_URL}/health`);
  await page.evaluate((token) => { localStorage.token = token; }, token);
  await page.goto(WEBUI_URL, { waitUntil: 'domcontentloaded' });
  await page.locator('#chat-input').waitFor();
  // What is new is told to administrators.
  if (role === 'admin') await page.getByRole('button', { name: "Okay, Let's Go!" }).click();
  return role;
}

async function choose(model) {
  await page.goto(WEBUI_URL, { waitUntil: 'domcontentloaded' });
  await page.locator('#model-selector-model-button').click();
  await page.locator('#model-search-input').fill(model);
  await page.locator(`[aria-label="Select ${model} model"]`).first().click();
  await page.locator(`#model-selector-model-button[aria-label="Selected model: ${model}"]`)
    .waitFor();
}

// Asks, and returns what is shown once the follow-up questions are there, which come last.
async function ask(question) {
  await page.locator('#chat-input').click();
  await page.keyboard.type(question);
  await page.keyboard.press('Enter');
  await page.getByRole('button', { name: 'Follow up:' }).first().waitFor();
  const answer = page.locator('[id^="message-"]:has(#continue-response-button, [id^="info-"])').last();
  const toggle = answer.getByRole('button', { name: /^Toggle \d+ sources?$/ });
  if (await toggle.count()) await toggle.click();
  const listed = answer.locator('button[id^="source-"]');
  return {
    text: await answer.innerText(),
    title: await page.title(),
    cited: await answer.locator('button[aria-label^="View source:"]:not([id])').allInnerTexts(),
    sources: (await listed.allInnerTexts()).map((one) => one.split('\n').at(-1)),
  };
}

// Opens what a link leads to, and returns which text is marked there.
async function marked(link, name = '') {
  const [opened] = await Promise.all([context.waitForEvent('page'), link.click()]);
  const mark = opened.locator('mark').first();
  const found = await mark.waitFor().then(() => true, () => false);
  const shown = { url: opened.url(), text: found ? await mark.innerText() : '' };
  if (found && name) await picture(`${name}-document`, opened);
  await opened.close();
  return shown;
}

// Opens the source behind a mark in the text, follows its links, and returns what is there.
async function follow(name = '') {
  await page.locator('button[aria-label^="View source:"]:not([id])').first().click();
  const modal = page.locator('[aria-modal="true"], .modal').last();
  const link = modal.locator('a[target="_blank"]').first();
  await link.waitFor();
  const shown = { heading: await link.innerText(), text: await modal.innerText() };
  if (name) await picture(`${name}-source`);
  shown.title = await marked(link, name);
  shown.content = await marked(modal.getByRole('link', { name: 'Content', exact: true }).first());
  await page.getByRole('button', { name: 'Close citation modal' }).last().click();
  return shown;
}

async function attach() {
  await page.locator('input[type="file"]').first().setInputFiles(UPLOAD);
  const name = UPLOAD.split('/').at(-1);
  await page.getByText(name.slice(0, 12)).first().waitFor();
  for (let waited = 0; waited < WAIT_MS; waited += 1000) {
    const files = (await call('/api/v1/files/?content=true')).body;
    const list = Array.isArray(files) ? files : files.items;
    const file = list.findLast((one) => one.filename === name);
    if (['completed', 'failed'].includes(file?.data?.status)) return file.data;
    await page.waitForTimeout(1000);
  }
  throw new Error(`${name} was not read`);
}

const steps = {
  async settings() {
    await enter('signup', ADMIN);
    const config = (await call('/openai/config')).body;
    const headers = { 'X-OpenWebUI-Task': '{{TASK}}' };
    config.OPENAI_API_CONFIGS = { 0: { enable: true, auth_type: 'bearer', headers } };
    const saved = await call('/openai/config/update', 'POST', config);
    const models = (await call('/api/models')).body.data.map((one) => one.id);
    return { saved: saved.status, models };
  },
  async chat() {
    await choose(`rag/${INDEX}`);
    const answer = await ask(QUESTION);
    await picture('open-webui-answer');
    return { answer, source: await follow('open-webui') };
  },
  async named() {
    await choose(`rag/${INDEX}@${MODEL}`);
    return { answer: await ask(QUESTION), source: await follow() };
  },
  async tool() {
    await choose(`rag/${INDEX}@${TOOL_CALLER}`);
    return { answer: await ask(QUESTION), source: await follow() };
  },
  async nothing() {
    await choose(`rag/${INDEX}`);
    return { answer: await ask(ELSEWHERE) };
  },
  async file() {
    await choose(MODEL);
    const file = await attach();
    const answer = await ask(FILE_QUESTION);
    await picture('open-webui-file');
    return { file, answer };
  },
  async both() {
    await choose(`rag/${INDEX}`);
    await attach();
    return { answer: await ask(FILE_QUESTION) };
  },
  async tools() {
    const server = {
      url: TOOLS_URL, path: 'openapi.json', type: 'openapi', auth_type: 'bearer', key: KEY,
      config: { enable: true, access_grants: [] }, info: { id: 'documents', name: 'Documents' },
    };
    const verified = await call('/api/v1/configs/tool_servers/verify', 'POST', server);
    const saved = await call('/api/v1/configs/tool_servers', 'POST',
      { TOOL_SERVER_CONNECTIONS: [server] });
    return { verified, saved: saved.status, tools: (await call('/api/v1/tools/')).body };
  },
  async people() {
    const added = await call('/api/v1/auths/add', 'POST', { ...USER, role: 'user' });
    // Models are the administrators' alone until they say otherwise.
    const everybody = { principal_type: 'user', principal_id: '*', permission: 'read' };
    const shared = await call('/api/v1/models/model/access/update', 'POST',
      { id: `rag/${DESK}`, access_grants: [everybody] });
    return { added: added.status, shared: shared.status };
  },
  async admin() {
    await choose(`rag/${DESK}`);
    return { answer: await ask(DESK_QUESTION), source: await follow('admin') };
  },
  async user() {
    const role = await enter('signin', USER);
    await choose(`rag/${DESK}`);
    const answer = await ask(DESK_QUESTION);
    await picture('user-answer');
    return { role, answer, source: await follow('user') };
  },
};

const seen = {};
for (const [name, step] of Object.entries(steps)) {
  try {
    seen[name] = await step();
  } catch (error) {
    seen[name] = { error: String(error).split('\n')[0] };
    await picture(`failed-${name}`);
  }
  console.error(`${name}: ${seen[name].error ?? 'done'}`);
}
await browser.close();
console.log(JSON.stringify({ ...seen, requested: [...requested] }));
