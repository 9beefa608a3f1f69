import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import type { UsageError } from '../../src/core/errors'
import { parseCommandLine, targetsOf } from '../../src/options/command-line'
import { redactArgv, redactUri } from '../../src/options/redact'
import { Redactor } from '../../src/options/redactor'
import { fakes } from './fakes'

test('passwords of URIs are hidden, the rest is as typed', () => {
  expect(redactUri('amqp://u:CANARY@mq:5672/v')).toBe('amqp://u:***@mq:5672/v')
  expect(redactUri('amqp://u:a@CANARY@mq/v')).toBe('amqp://u:***@mq/v')
  expect(redactUri('amqp://u@mq/v')).toBe('amqp://u@mq/v')
  expect(redactUri('kafka://h1:9092,h2:9092/t@1')).toBe('kafka://h1:9092,h2:9092/t@1')
  expect(redactUri('ws://[::1]:80/a@b')).toBe('ws://[::1]:80/a@b')
  expect(redactUri('file:/a:b@c')).toBe('file:/a:b@c')
  expect(redactUri('amqp://u:{env:P}@mq/v')).toBe('amqp://u:{env:P}@mq/v')
  expect(redactUri('amqp://u:x{env:P}@mq/v')).toBe('amqp://u:***@mq/v')
})

test('a password that breaks its URI is hidden all the same', () => {
  for (const uri of [
    'amqp://u:CANARY/x@mq/v',
    'amqp://u:x/CANARY@mq/v',
    'amqp://u:CANARY?x@mq/v',
    'nosuch://u:CANARY@h',
    'amqp://u:x?CANARY@mq/v',
  ])
    expect(redactUri(uri)).not.toContain('CANARY')
})

test("values of a feed's query are hidden unless their name says that they are harmless", () => {
  expect(
    redactUri(
      'wss://h/v1?streams=btc&apikey=CANARY&X-Signature=CANARY&access_token=CANARY&auth={env:A}&reconnect_every=1h',
      fakes,
    ),
  ).toBe('wss://h/v1?streams=btc&apikey=***&X-Signature=***&access_token=***&auth={env:A}&reconnect_every=1h')
})

test('a parameter of a feed that nobody knows is hidden in every message', () => {
  expect(redactUri('wss://h/v1?t=CANARY&Symbols[]=btc&cursor=1', fakes)).toBe('wss://h/v1?t=***&Symbols[]=btc&cursor=1')
  expect(redactUri('nosuch://h/v1?t=CANARY')).toBe('nosuch://h/v1?t=***')
  const line = parseCommandLine(['--from', 'wss://h/v1?t=CANARY-abc&streams=btcusdt', '--to', '-'], {}, fakes)
  expect(line.from[0]?.label).toBe('wss://h/v1?t=***&streams=btcusdt')
  expect(line.redactor.redact('at CANARY-abc of btcusdt')).toBe('at *** of btcusdt')
})

test('an endpoint without address and path is called by its scheme alone', () => {
  const line = parseCommandLine(['--from', 'generate:', '--to', 'discard:'], {}, fakes)
  expect([...line.from, ...line.to].map(({ label }) => label)).toEqual(['generate', 'discard'])
})

test('a private key is hidden in whatever option it stands, and a login in a message', async () => {
  const pem = (kind: string): string =>
    `-----BEGIN ${kind}PRIVATE KEY-----\nCANARY0123456789\nCANARY9876543210\n-----END ${kind}PRIVATE KEY-----\n`
  for (const kind of ['', 'EC ', 'RSA ', 'ENCRYPTED ']) {
    const argv = [
      '--from',
      'ws://h/',
      `cert=${pem(kind)}`,
      'send={"op":"login","apiSecret":"CANARY-login","id":"harmless"}',
      '--to',
      '-',
    ]
    expect(redactArgv(argv, fakes)[2]).toBe('cert=***')
    const { redactor } = parseCommandLine(argv, {}, fakes)
    const told = redactor.redact(argv.join(' '))
    expect(told).not.toContain('CANARY')
    expect(told).toContain('harmless')
  }
  const file = join(mkdtempSync(join(tmpdir(), 'manifold-pem-')), 'key.pem')
  writeFileSync(file, pem(''))
  const line = parseCommandLine(['--from', 'ws://h/', `cert={file:${file}}`, '--to', '-'], {}, fakes)
  await targetsOf(line)
  expect(line.redactor.redact(pem(''))).not.toContain('CANARY')
  rmSync(dirname(file), { recursive: true })
})

test('declared options are hidden by their declaration, others by their name', () => {
  expect(redactUri('s3://b/p?key=x-{id}&SecretAccessKey=CANARY&session-token=CANARY', fakes)).toBe(
    's3://b/p?key=x-{id}&SecretAccessKey=***&session-token=***',
  )
})

test('every secret of a command line is hidden, and nothing else', () => {
  const argv = [
    'unit',
    'x',
    '--',
    '--from',
    'wss://u:CANARY@h/p?token=CANARY&t=CANARY&streams=b',
    'Header.X-Key=CANARY',
    'header.Authorization=Bearer {env:T}',
    'header.Y={file:/y}',
    'token={exec:vault CANARY}',
    'sennd=a',
    '--to=s3://b/p?secret_key=CANARY',
    'secret-access-key=CANARY',
    'key=yes',
    'api-token=CANARY',
    'secret-key',
    'CANARY',
    '--to',
    'amqp://a:CANARY@mq',
    'partition-key={json:a}',
    '--dead-letter',
    'amqp://a:CANARY@mq',
    'exchange=x',
    '--append',
    'token=CANARY',
    '--append',
    'password:="CANARY"',
    '--name',
    'n',
    'ws://u:CANARY@stray',
  ]
  const redacted = redactArgv(argv, fakes)
  expect(redacted).toHaveLength(argv.length)
  expect(redacted.join(' ')).not.toContain('CANARY')
  expect(redacted).toEqual([
    'unit',
    'x',
    '--',
    '--from',
    'wss://u:***@h/p?token=***&t=***&streams=b',
    'Header.X-Key=***',
    'header.Authorization=***',
    'header.Y={file:/y}',
    'token=***',
    'sennd=a',
    '--to=s3://b/p?secret_key=***',
    'secret-access-key=***',
    'key=yes',
    'api-token=***',
    'secret-key',
    '***',
    '--to',
    'amqp://a:***@mq',
    'partition-key={json:a}',
    '--dead-letter',
    'amqp://a:***@mq',
    'exchange=x',
    '--append',
    'token=***',
    '--append',
    'password:=***',
    '--name',
    'n',
    'ws://u:***@stray',
  ])
})

test('a redactor removes what it was told, in every form that text takes', () => {
  const redactor = new Redactor()
  redactor.learn('p/w "x"+1')
  redactor.learn('short')
  redactor.learn('p/w "x"+1 and more')
  redactor.learn('-----BEGIN-----\nabcdefgh\nijklmnop\n')
  expect(
    redactor.redact(
      'a p/w "x"+1 and more, p/w "x"+1, p%2Fw%20%22x%22%2B1 p/w%20%22x%22+1 {"e":"p/w \\"x\\"+1"} short ijklmnop',
    ),
  ).toBe('a ***, ***, *** *** {"e":"***"} short ***')
  expect(new Redactor().redact('x')).toBe('x')
})

test('a redactor keeps to the newest values', () => {
  const redactor = new Redactor()
  for (let i = 0; i < 2000; i++) redactor.learn(`token-${i}-x`)
  expect(redactor.redact('token-1999-x token-0-x')).toBe('*** token-0-x')
})

test('canaries of a command line are in no label, warning or canonical text, and its redactor knows them', async () => {
  const env = {
    PW: 'CANARY-password',
    TOK: 'CANARY token&1',
    HDR: 'CANARY-header',
    SK: 'CANARY-secret',
    HOST: 'mq.example',
    REGION: 'eu-west-1',
  }
  const line = parseCommandLine(
    [
      '--from',
      'wss://u:{env:PW}@{env:HOST}/p?apikey=CANARY-inline&t={env:TOK}',
      'header.Auth=Basic {env:HDR}',
      'send={"k":"{env:SK}"}',
      'token=CANARY-typed',
      '--to',
      's3://lake/x',
      'key=http://u:CANARY-in-option@h',
      'secret-key={env:SK}',
      'region={env:REGION}',
      '--to',
      'amqp://a:CANARY-literal@mq/',
      'exchange=x',
    ],
    env,
    fakes,
  )
  const targets = await targetsOf(line)
  const told = [...line.from, ...line.to]
    .flatMap(({ label, warnings }) => [label, ...warnings])
    .concat([...targets.from, ...targets.to].map(({ label }) => label))
    .join('\n')
  expect(told).not.toContain('CANARY')
  expect(line.from[0]?.label).toBe('wss://u:***@{env:HOST}/p?apikey=***&t={env:TOK}')
  expect(line.warnings).toEqual([
    expect.stringContaining('token of wss stands on the command line'),
    expect.stringContaining('the password of amqp://a:***@mq/ stands on the command line'),
  ])
  const text = `connect mq.example eu-west-1 ${targets.from[0]?.uri.text ?? ''} ${Object.values(env).join(' ')} CANARY-inline CANARY-typed CANARY-literal CANARY-in-option`
  expect(text).toContain('CANARY')
  expect(line.redactor.redact(text)).not.toContain('CANARY')
  expect(line.redactor.redact(text)).toContain('connect mq.example eu-west-1')
})

test('a secret option is warned of only where there is a secret in it', () => {
  const warnings = (word: string): readonly string[] =>
    parseCommandLine(['--from', 'ws://h/', word, '--to', '-'], {}, fakes).warnings
  expect(warnings('proxy=http://proxy:3128')).toEqual([])
  expect(warnings('proxy=http://u:secret@proxy:3128')).toHaveLength(1)
  expect(warnings('token={env:T}')).toEqual([])
  expect(warnings('token=abcdef')).toHaveLength(1)
})

test('no fault shows a secret', () => {
  const argv = [
    '--from',
    'amqp://u:CANARY/1@mq',
    'queue=x',
    '--to',
    's3://lake/x',
    'secret-access-keyy=CANARY',
    'secret-access-key=CANARY',
    'secret_key=CANARY',
    'amqp://u:CANARY@mq',
    'token',
    'amqp://u:CANARY@h/x=y',
    '--to',
    'ws://h/p',
    'header=CANARY',
    '--too=amqp://u:CANARY@mq',
    '-',
    'nosuch://u:CANARY@h',
    '--append',
    'token:=CANARY',
    '--append',
    '=CANARY',
    '--progress',
    'http://u:CANARY@h',
    '--to',
    's3://b',
    'compression=http://u:CANARY@h',
  ]
  let message = ''
  try {
    parseCommandLine(argv, {}, fakes)
  } catch (error) {
    message = (error as UsageError).message
  }
  expect(message.split('\n').length).toBeGreaterThan(5)
  expect(message).not.toContain('CANARY')
})
