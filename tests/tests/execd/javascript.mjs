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

const { commands, files } = sandbox;
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
console.log('commands: fine');

const session = await commands.createSession({ workingDirectory: '/tmp' });
assert.equal(out(await commands.runInSession(session, 'pwd; export V=1')), '/tmp');
assert.equal((await commands.runInSession(session, 'echo $V; exit 4')).exitCode, 4);
assert.equal(out(await commands.runInSession(session, 'echo $V')), '1');
await commands.deleteSession(session);
console.log('sessions: fine');

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
await files.deleteFiles([`${base}/n/c`]);
await files.deleteDirectories([`${base}/n`]);
assert.ok(!fs.existsSync(`${base}/n`));
await assert.rejects(() => files.readFile(`${base}/none`));
assert.ok((await sandbox.getMetrics()).cpuCount > 0);
await sandbox.kill();
console.log('files: fine');
process.exit(0);
