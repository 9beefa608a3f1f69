/**
 * S3 servers: versitygw and MinIO (where Go is there), moto (where Python is). They differ in what they prove: the
 * first two refuse bad signatures and checksums and let one of several racers win; moto takes what it gets.
 */
'use strict'
const fs = require('fs')
const path = require('path')
const { answers, bin, cache, startProcess } = require('./process')

const KEYS = { accessKey: 'manifold-test', secretKey: 'manifold-test-secret' }
const moto = path.join(cache, 'moto', 'bin', 'moto_server')

const kinds = {
  versitygw: {
    file: bin('versitygw'),
    needs: 'go',
    module: 'github.com/versity/versitygw/cmd/versitygw@v1.8.0',
    command: (port, dir) => {
      fs.mkdirSync(path.join(dir, 'root'), { recursive: true })
      return {
        file: bin('versitygw'),
        args: [
          '--access',
          KEYS.accessKey,
          '--secret',
          KEYS.secretKey,
          '--port',
          `127.0.0.1:${port}`,
          'posix',
          path.join(dir, 'root'),
        ],
      }
    },
    ready: (port) => answers(`http://127.0.0.1:${port}/`),
  },
  minio: {
    file: bin('minio'),
    needs: 'go',
    // Its releases are no versions to Go: the commit of 2026-02-12.
    module: 'github.com/minio/minio@v0.0.0-20260212201848-7aac2a2c5b7c',
    command: (port, dir, region) => ({
      file: bin('minio'),
      args: ['server', '--quiet', '--address', `127.0.0.1:${port}`, path.join(dir, 'data')],
      env: Object.assign(
        {
          MINIO_ROOT_USER: KEYS.accessKey,
          MINIO_ROOT_PASSWORD: KEYS.secretKey,
          MINIO_UPDATE: 'off',
          MINIO_BROWSER: 'off',
          MINIO_CI_CD: '1',
        },
        region === undefined ? {} : { MINIO_REGION: region },
      ),
    }),
    ready: (port) => answers(`http://127.0.0.1:${port}/minio/health/ready`, true),
  },
  moto: {
    file: moto,
    needs: 'python',
    requirement: 'moto[server]==5.2.5',
    command: (port) => ({ file: moto, args: ['-H', '127.0.0.1', '-p', String(port)] }),
    ready: (port) => answers(`http://127.0.0.1:${port}/moto-api/`, true),
  },
}

/** Kinds that can be started here, best first. */
function available() {
  return Object.keys(kinds).filter((kind) => fs.existsSync(kinds[kind].file))
}

/**
 * Starts the kind that is given. Without one it uses the server that MANIFOLD_TEST_S3=http://ACCESSKEY:SECRET@HOST:PORT
 * names, which is never stopped from here, or starts the best kind that is installed.
 * @param {{ kind?: string, dir?: string, port?: number, region?: string }} [options]
 */
async function startS3(options) {
  const { kind, dir, port, region } = options || {}
  const named = process.env.MANIFOLD_TEST_S3
  if (named && kind === undefined) {
    const url = new URL(named)
    const fixed = () => Promise.reject(new Error(`the S3 server ${url.host} is not ours to stop`))
    return {
      kind: 'environment',
      endpoint: url.origin,
      accessKey: decodeURIComponent(url.username),
      secretKey: decodeURIComponent(url.password),
      kill: fixed,
      restart: fixed,
      freeze: fixed,
      thaw: fixed,
      stop: () => Promise.resolve(),
    }
  }
  const chosen = kind || available()[0]
  if (chosen === undefined || !fs.existsSync(kinds[chosen].file))
    throw new Error(
      `there is no S3 server (${chosen || 'none of versitygw, minio, moto'}) here: node scripts/services.js install --need s3`,
    )
  const server = await startProcess({
    name: chosen,
    command: (at, folder) => kinds[chosen].command(at, folder, region),
    ready: kinds[chosen].ready,
    ...(dir === undefined ? {} : { dir }),
    ...(port === undefined ? {} : { port }),
  })
  return Object.defineProperties(
    {},
    Object.assign(
      Object.getOwnPropertyDescriptors(server),
      Object.getOwnPropertyDescriptors(
        Object.assign({ kind: chosen, endpoint: `http://127.0.0.1:${server.port}` }, KEYS),
      ),
    ),
  )
}

module.exports = { available, kinds, startS3 }
