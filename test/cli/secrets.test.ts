/** Tests secrets in places of a line that no declaration calls secret. Nothing that a run writes may contain one. */
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { manifold } from '../support/manifold'

const PEM =
  '-----BEGIN EC PRIVATE KEY-----\nCANARYabcdefghijklmnop\nCANARYqrstuvwxyz012345\n-----END EC PRIVATE KEY-----\n'
/** The same without the lines around it, as somebody may paste it. */
const BARE_KEY = `MIGHAgEAMBMGByqGSM49CANARY${'AwEHBG0wawIBAQQgq'.repeat(4)}`
const CERTIFICATE = '-----BEGIN CERTIFICATE-----\nMIIBszCCAVmgAwIBAgIU\n-----END CERTIFICATE-----\n'

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'manifold-secrets-'))
})
afterEach(() => {
  rmSync(folder, { recursive: true, force: true })
})

function textOf(directory: string): string {
  return readdirSync(directory, { recursive: true, encoding: 'utf8' })
    .map((name) => join(directory, name))
    .filter((path) => statSync(path).isFile())
    .map((path) => readFileSync(path, 'latin1'))
    .join('\n')
}

test.each([
  [
    "an unknown parameter of a feed's query",
    ['--from', 'ws://127.0.0.1:1/feed?t=CANARY-query&streams=btc', '--to', 'discard:'],
  ],
  [
    "a private key in a feed's line",
    ['--from', 'wss://127.0.0.1:1/feed', `cert=${CERTIFICATE}`, `key=${PEM}`, '--to', 'discard:'],
  ],
  [
    'a private key in a line with Kafka',
    ['--from', 'kafka+tls://127.0.0.1:1/t', `cert=${CERTIFICATE}`, `cert-key=${PEM}`, '--to', 'discard:'],
  ],
  [
    'a private key in a line with RabbitMQ',
    ['--from', 'amqps://127.0.0.1:1/', 'queue=q', `cert=${CERTIFICATE}`, `certkey=${PEM}`, '--to', 'discard:'],
  ],
  [
    "a private key without its first line in a feed's line",
    ['--from', 'wss://127.0.0.1:1/feed', `cert=${CERTIFICATE}`, `cert-key=${BARE_KEY}`, '--to', 'discard:'],
  ],
  [
    'a private key without its first line in a line with Kafka',
    ['--from', 'kafka+tls://127.0.0.1:1/t', `cert=${CERTIFICATE}`, `ssl.key.location=${BARE_KEY}`, '--to', 'discard:'],
  ],
  [
    "a private key without its first line in the query of a broker's URI",
    ['--from', `amqps://127.0.0.1:1/?queue=q&certfile=/nowhere&keyfile=${BARE_KEY}`, '--to', 'discard:'],
  ],
  [
    'a login that is sent',
    ['--from', 'ws://127.0.0.1:1/', 'send={"op":"auth","secretKey":"CANARY-login"}', '--to', 'discard:'],
  ],
  [
    'what a failing command prints',
    ['--from', 'ws://127.0.0.1:1/', 'header.A={exec:echo CANARY-stderr >&2; exit 1}', '--to', 'discard:'],
  ],
])('%s is in no log, receipt, metric, state file or listing', async (_, line) => {
  const state = join(folder, 'state')
  mkdirSync(state)
  const flags = [
    '--name',
    'told',
    '--state',
    state,
    '--spool',
    join(folder, 'spool'),
    '--receipt',
    join(folder, 'receipt'),
    '--metrics',
    `file:${join(folder, 'x.prom')}`,
    '--log-level',
    'debug',
    '--give-up-after',
    'first',
  ]
  const run = await manifold([...line, ...flags])
  const listed = await manifold(['ls', '--state', state])
  expect(run.code).not.toBe(0)
  const told = [run.stderr, run.stdout.toString(), listed.stderr, listed.stdout.toString(), textOf(folder)].join('\n')
  expect(told).toMatch(/127\.0\.0\.1|the command ended with code 1/)
  expect(told).not.toContain('CANARY')
})

test.each([
  ['wss://127.0.0.1:1/feed', 'key'],
  ['wss://127.0.0.1:1/feed', 'cert-key'],
  ['kafka+tls://127.0.0.1:1/t', 'cert-key'],
  ['amqps://127.0.0.1:1/?queue=q', 'certkey'],
])(
  'the file of a private key is no secret: the line of %s with %s= is kept, and its flow can be drained',
  async (uri, name) => {
    const state = join(folder, 'state')
    const [cert, key] = [join(folder, 'cert.pem'), join(folder, 'key.pem')]
    writeFileSync(cert, CERTIFICATE)
    writeFileSync(key, PEM)
    const line = ['--from', uri, `cert=${cert}`, `${name}=${key}`, '--to', 'discard:']
    const run = await manifold([...line, '--name', 'told', '--state', state, '--give-up-after', 'first'])
    expect(run.stderr).not.toMatch(/stands on the command line/)
    const kept = textOf(state)
    expect(kept).toContain(`${name}=${key}`)
    expect(kept).not.toContain('CANARY')
  },
)
