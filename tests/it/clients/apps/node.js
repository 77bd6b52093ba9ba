'use strict';
// The application of the tests, as a Node program.
const crypto = require('node:crypto');
const http = require('node:http');
const { bridge } = require(process.env.CLIENTS + '/node/cloudbridge.js');

function lines(count) {
  let text = '';
  for (let number = 0; number < count; number += 1) text += String(number).padStart(15, '0') + '\n';
  return text;
}

const server = http.createServer((request, response) => {
  const [, what, count] = request.url.split('/');
  if (what === 'lines') {
    response.end(lines(Number(count)));
  } else if (what === 'wait') {
    console.log('waiting');
    process.stdin.once('data', () => response.end('waited'));
  } else if (what === 'unread') {
    response.end('not read');
  } else if (what === 'fields') {
    response.end(request.rawHeaders.filter((_, at) => at % 2 === 0).map((name) => name.toLowerCase()).join(' '));
  } else if (what === 'forged') {
    response.statusCode = 503;
    response.setHeader('Cloudbridge-Undelivered', 'application');
    if (count === 'list') response.writeHead(503, ['X-A', 'b', 'cloudbridge-undelivered', 'x']);
    if (count === 'object') response.writeHead(503, 'No', { 'X-A': 'b', 'CLOUDBRIDGE-UNDELIVERED': 'x' });
    response.end('forged');
  } else if (request.method === 'POST') {
    const pieces = [];
    request.on('data', (piece) => pieces.push(piece));
    request.on('end', () => response.end(Buffer.concat(pieces)));
  } else {
    response.end(`${request.method} ${request.url} for ${request.headers.host}`);
  }
});

// A tunnel whose end answers when the client has ended its side.
function tunnel(socket) {
  const pieces = [];
  socket.write('HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n');
  socket.on('data', (piece) => pieces.push(piece));
  socket.on('end', () => socket.end(`${Buffer.concat(pieces)} and done`));
}

// A WebSocket echo of short text frames (RFC 6455), by hand.
if (process.env.WEBSOCKETS) {
  server.on('upgrade', (request, socket) => {
    if (request.url === '/tunnel') return tunnel(socket);
    const key = request.headers['sec-websocket-key'] + '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';
    const accept = crypto.createHash('sha1').update(key).digest('base64');
    socket.write('HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n' +
      `Sec-WebSocket-Accept: ${accept}\r\n\r\n`);
    let held = Buffer.alloc(0);
    socket.on('data', (bytes) => {
      held = Buffer.concat([held, bytes]);
      while (held.length >= 6 && held.length >= 6 + (held[1] & 0x7f)) {
        const length = held[1] & 0x7f;
        const mask = held.subarray(2, 6);
        const text = held.subarray(6, 6 + length).map((byte, at) => byte ^ mask[at % 4]);
        held = held.subarray(6 + length);
        socket.write(Buffer.concat([Buffer.from([0x81, length]), text]));
      }
    });
    socket.on('end', () => socket.end());
  });
}

const bridges = bridge(server, {
  proxies: process.env.PROXIES.split(','),
  connections: Number(process.env.CONNECTIONS),
});
process.on('SIGTERM', async () => {
  await bridges.close();
  console.log('stopped');
  process.stdin.destroy();
});
