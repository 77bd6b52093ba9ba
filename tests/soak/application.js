'use strict';
// The application of the soak over the Node library: what application.py says of /get and /post.
//
//     application.js JOURNAL HOST PROXY...

const fs = require('node:fs');
const http = require('node:http');
const path = require('node:path');
const zlib = require('node:zlib');
const { bridge } = require(path.join(__dirname, '../../src/clients/node/cloudbridge.js'));

const [file, host, ...proxies] = process.argv.slice(2);
const journal = fs.openSync(file, 'a');
const note = (...words) => fs.writeSync(journal, words.join(' ') + '\n');

/** CRC-32 as zlib's; Node has it only since version 22. */
const TABLE = Array.from({ length: 256 }, (_, byte) => {
  for (let bit = 0; bit < 8; bit++) byte = byte & 1 ? (byte >>> 1) ^ 0xedb88320 : byte >>> 1;
  return byte >>> 0;
});
function crc32(bytes) {
  if (zlib.crc32) return zlib.crc32(bytes);
  let value = 0xffffffff;
  for (const byte of bytes) value = TABLE[(value ^ byte) & 255] ^ (value >>> 8);
  return (value ^ 0xffffffff) >>> 0;
}

const server = http.createServer((request, response) => {
  const url = new URL(request.url, 'http://soak');
  const [, what, id] = url.pathname.split('/');
  note('R', id, request.method);
  const body = [];
  request.on('data', (piece) => body.push(piece));
  request.on('end', () => {
    const whole = Buffer.concat(body);
    if (what === 'post') note('X', id);
    const sum = `${whole.length}:${crc32(whole).toString(16).padStart(8, '0')}`;
    const text = what === 'post' ? `${id} ${sum}` : id;
    setTimeout(() => {
      response.setHeader('X-Id', id);
      response.setHeader('Content-Length', Buffer.byteLength(text));
      response.end(text, () => note('E', id));
    }, Number(url.searchParams.get('work') || 0));
  });
});

const bridges = bridge(server, { proxies, hosts: [host], connections: 4 });
process.once('SIGTERM', () => bridges.close());
