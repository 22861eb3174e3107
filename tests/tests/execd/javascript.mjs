// Drives an execd with the published npm SDK: javascript.mjs ADDRESS DIRECTORY. The lifecycle API is a stub.
import assert from 'node:assert';
import fs from 'node:fs';
import http from 'node:http';
import { ConnectionConfig, Sandbox } from '@alibaba-group/opensandbox';

const [address, base] = process.argv.slice(2);
const made = { id: 's1', status: { state: 'Running' }, createdAt: '2026-01-01T00:00:00Z', entrypoint: ['x'] };
const lifecycle = http.createServer((request, response) => {
  request.resume().on('end', () => {
    const answer = (status, body) => {
      response.writeHead(status, { 'content-type': 'application/json' });
      response.end(JSON.stringify(body));
    };
    if (request.method === 'POST') return answer(202, made);
    if (request.method === 'DELETE') return response.writeHead(204).end();
    return answer(200, request.url.includes('endpoints') ? { endpoint: address } : { ...made, image: { uri: 'x' } });
  });
});
await new Promise((listening) => lifecycle.listen(0, '127.0.0.1', listening));
const connectionConfig = new ConnectionConfig({ domain: `127.0.0.1:${lifecycle.address().port}` });
const sandbox = await Sandbox.create({ connectionConfig, image: 'x' });
const out = (run) => run.logs.stdout.map((message) => message.text).join('');

// Each method is noted when it has worked; for each there is one line, which docs/compatibility.md is made of.
const passed = new Set();
const traced = (name, service) => new Proxy(service, {
  get(target, method) {
    const real = target[method];
    if (typeof real !== 'function') return real;
    return (...args) => {
      const result = real.apply(target, args);
      if (result?.then) return result.then((value) => (passed.add(`${name}.${method}`), value));
      passed.add(`${name}.${method}`);
      return result;
    };
  },
});
// What the SDK keeps to itself.
const INTERNAL = /^(build|consume|fetch$|streamExecution$|mapApi|parseIso|downloadStream$|uploadFile$)/;
const rows = (name, service) => {
  const methods = new Set();
  for (let at = service; at && at !== Object.prototype; at = Object.getPrototypeOf(at)) {
    for (const method of Object.getOwnPropertyNames(at)) {
      const text = Object.getOwnPropertyDescriptor(at, method).value;
      if (typeof text === 'function' && /^[a-z]/.test(method) && method !== 'constructor' && !INTERNAL.test(method)) methods.add(method);
    }
  }
  for (const method of [...methods].sort()) {
    assert.ok(passed.has(`${name}.${method}`), `${name}.${method} was not tried`);
    console.log(`row\tnpm\t${name}.${method}\tpasses`);
  }
};
const commands = traced('commands', sandbox.commands);
const files = traced('files', sandbox.files);
let run = await commands.run("echo hi; echo e >&2; printf 'a\\n\\nb'");
assert.deepEqual(run.logs.stdout.map((message) => message.text), ['hi', 'a', '\n', 'b']);
assert.deepEqual([run.logs.stderr[0].text, run.exitCode], ['e', 0]);
run = await commands.run('exit 3');
assert.deepEqual([run.exitCode, run.error.value], [3, '3']);
run = await commands.run('echo $A', { envs: { A: 'b c' }, workingDirectory: '/tmp' });
assert.equal(out(run), 'b c');
run = await commands.run('echo line; sleep 30', { background: true });
assert.equal((await commands.getCommandStatus(run.id)).running, true);
let logs;
do logs = await commands.getBackgroundCommandLogs(run.id, 0);
while (!logs.content.includes('line'));
await commands.interrupt(run.id);
assert.equal((await commands.getCommandStatus(run.id)).running, false);
await assert.rejects(() => commands.interrupt('none'));

let streamed = '';
for await (const event of commands.runStream('echo streamed')) streamed += event.type === 'stdout' ? event.text : '';
assert.equal(streamed, 'streamed');

const session = await commands.createSession({ workingDirectory: '/tmp' });
assert.equal(out(await commands.runInSession(session, 'pwd; export V=1')), '/tmp');
assert.equal((await commands.runInSession(session, 'echo $V; exit 4')).exitCode, 4);
assert.equal(out(await commands.runInSession(session, 'echo $V')), '1');
streamed = '';
for await (const event of commands.runInSessionStream(session, 'echo again')) streamed += event.type === 'stdout' ? event.text : '';
assert.equal(streamed, 'again');
await commands.deleteSession(session);

const [text, data] = [`${base}/n/a é`, `${base}/n/b`];
await files.createDirectories([{ path: `${base}/n`, mode: 755 }]);
await files.writeFiles([{ path: text, data: 'héllo\nworld', mode: 644 }, { path: data, data: new Uint8Array([0, 255, 10]) }]);
assert.equal(await files.readFile(text), 'héllo\nworld');
assert.deepEqual([...(await files.readBytes(data, { range: 'bytes=1-2' }))], [255, 10]);
assert.equal((await files.getFileInfo([text]))[text].mode, 644);
assert.equal((await files.search({ path: `${base}/n`, pattern: '*' })).length, 2);
assert.equal((await files.listDirectory({ path: `${base}/n` })).length, 2);
await files.moveFiles([{ src: data, dest: `${base}/n/c` }]);
await files.setPermissions([{ path: `${base}/n/c`, mode: 600 }]);
const counted = await files.replaceContentsDetailed([{ path: text, oldContent: 'l', newContent: 'L' }]);
assert.equal(counted[0].replacedCount, 3);
await files.replaceContents([{ path: text, oldContent: 'L', newContent: 'l' }]);
let pieces = '';
for await (const piece of files.readBytesStream(text)) pieces += Buffer.from(piece).toString('latin1');
assert.equal(Buffer.from(pieces, 'latin1').toString(), 'héllo\nworld');
await files.deleteFiles([`${base}/n/c`]);
await files.deleteDirectories([`${base}/n`]);
assert.ok(!fs.existsSync(`${base}/n`));
await assert.rejects(() => files.readFile(`${base}/none`));
assert.ok((await sandbox.getMetrics()).cpuCount > 0);
rows('commands', sandbox.commands);
rows('files', sandbox.files);
await sandbox.kill();
process.exit(0);
