/**
 * Certificates for test servers: an authority, the server's certificate for localhost, one for each client, and one
 * that an untrusted authority has signed.
 */
'use strict'
const { execFileSync } = require('child_process')
const fs = require('fs')
const path = require('path')

function openssl(args) {
  try {
    execFileSync('openssl', args, { stdio: ['ignore', 'ignore', 'pipe'] })
  } catch (error) {
    throw new Error(
      error.code === 'ENOENT'
        ? 'certificates need openssl in PATH'
        : `openssl ${args[0]} failed: ${String(error.stderr).trim().slice(-300)}`,
    )
  }
}

/**
 * @param {string} dir it is made where it is missing; files that are there are kept
 * @param {string[]} clients common names
 * @returns {{ ca: string, cert: string, key: string, clients: Record<string, { cert: string, key: string }>, stranger:
 *   { cert: string, key: string } }} paths of PEM files; keys are PKCS 8 without password
 */
function certificates(dir, clients) {
  fs.mkdirSync(dir, { recursive: true })
  const at = (name) => path.join(dir, name)
  const pair = (name) => ({ cert: at(`${name}.pem`), key: at(`${name}.key`) })
  const request = [
    'req',
    '-x509',
    '-newkey',
    'ec',
    '-pkeyopt',
    'ec_paramgen_curve:prime256v1',
    '-nodes',
    '-days',
    '3650',
    '-sha256',
  ]
  const authority = (name) => {
    if (!fs.existsSync(pair(name).cert))
      openssl([
        ...request,
        '-subj',
        `/CN=${name}`,
        '-addext',
        'keyUsage=critical,keyCertSign,cRLSign',
        '-keyout',
        pair(name).key,
        '-out',
        pair(name).cert,
      ])
  }
  const signed = (name, by, extensions) => {
    if (fs.existsSync(pair(name).cert)) return
    // By default `req` marks each certificate that it signs as an authority.
    openssl([
      ...request,
      '-subj',
      `/CN=${name}`,
      '-addext',
      'basicConstraints=critical,CA:FALSE',
      ...extensions.flatMap((each) => ['-addext', each]),
      '-CA',
      pair(by).cert,
      '-CAkey',
      pair(by).key,
      '-keyout',
      pair(name).key,
      '-out',
      pair(name).cert,
    ])
  }
  authority('ca')
  authority('other-ca')
  signed('localhost', 'ca', ['subjectAltName=DNS:localhost,IP:127.0.0.1', 'extendedKeyUsage=serverAuth'])
  for (const name of clients) signed(name, 'ca', ['extendedKeyUsage=clientAuth'])
  signed('stranger', 'other-ca', ['extendedKeyUsage=clientAuth'])
  return {
    ca: pair('ca').cert,
    ...pair('localhost'),
    clients: Object.fromEntries(clients.map((name) => [name, pair(name)])),
    stranger: pair('stranger'),
  }
}

module.exports = { certificates }
