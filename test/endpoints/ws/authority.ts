/** Makes a certificate authority for a test, with openssl. */
import { execFile } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)

export interface Issued {
  readonly cert: string
  readonly key: string
  readonly certFile: string
  readonly keyFile: string
}
export interface Authority {
  readonly folder: string
  readonly caFile: string
  readonly ca: string
  /** @param names subjectAltName, such as `DNS:localhost,IP:127.0.0.1` @param days negative: out of its time already */
  issue(name: string, names: string, days?: number): Promise<Issued>
  close(): Promise<void>
}

export async function makeAuthority(): Promise<Authority> {
  const folder = await mkdtemp(join(tmpdir(), 'manifold-ws-ca-'))
  const at = (name: string): string => join(folder, name)
  const ec = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes']
  await run('openssl', [
    'req',
    '-x509',
    ...ec,
    '-keyout',
    at('ca.key'),
    '-out',
    at('ca.pem'),
    '-days',
    '2',
    '-subj',
    '/CN=test authority',
  ])
  return {
    folder,
    caFile: at('ca.pem'),
    ca: await readFile(at('ca.pem'), 'utf8'),
    issue: async (name, names, days = 1) => {
      await run('openssl', [
        'req',
        ...ec,
        '-keyout',
        at(`${name}.key`),
        '-out',
        at(`${name}.csr`),
        '-subj',
        `/CN=${name}`,
      ])
      await writeFile(at(`${name}.ext`), `subjectAltName=${names}\n`)
      const time = days > 0 ? ['-days', String(days)] : ['-days', '-1']
      await run('openssl', [
        'x509',
        '-req',
        '-in',
        at(`${name}.csr`),
        '-CA',
        at('ca.pem'),
        '-CAkey',
        at('ca.key'),
        '-CAcreateserial',
        '-out',
        at(`${name}.pem`),
        ...time,
        '-extfile',
        at(`${name}.ext`),
      ])
      return {
        cert: await readFile(at(`${name}.pem`), 'utf8'),
        key: await readFile(at(`${name}.key`), 'utf8'),
        certFile: at(`${name}.pem`),
        keyFile: at(`${name}.key`),
      }
    },
    close: () => rm(folder, { recursive: true, force: true }),
  }
}
