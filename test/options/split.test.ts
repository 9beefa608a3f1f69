import * as fc from 'fast-check'
import { UsageError } from '../../src/core/errors'
import { buildUri, splitUri } from '../../src/options/split'
import { asTyped } from '../../src/options/template'
import { fakes } from './fakes'

function split(text: string) {
  const { endpoint, parts, query } = splitUri(text, fakes)
  return {
    endpoint,
    uri: buildUri(parts),
    query: query.map(({ name, value, bare }) => (bare ? name : `${name}=${asTyped(value)}`)),
  }
}
function faultOf(text: string): string {
  try {
    split(text)
  } catch (error) {
    return (error as UsageError).message
  }
  throw new Error(`no fault in ${text}`)
}

test('a hierarchical URI is taken apart into hosts, path and options', () => {
  const { uri, query } = split('s3://lake/trades/eu?commit-file-size=64MiB&upload-every=10s&path-style')
  expect(uri).toEqual({ scheme: 's3', hosts: [{ host: 'lake' }], path: '/trades/eu', text: 's3://lake/trades/eu' })
  expect(query).toEqual(['commit-file-size=64MiB', 'upload-every=10s', 'path-style'])
})

test('several hosts stand before one path', () => {
  const { uri } = split('kafka+tls://h1:9092,h2,[::1]:9093/orders')
  expect(uri.scheme).toBe('kafka+tls')
  expect(uri.hosts).toEqual([{ host: 'h1', port: 9092 }, { host: 'h2' }, { host: '::1', port: 9093 }])
  expect(uri.path).toBe('/orders')
})

test('user and password are decoded once and may hold an @', () => {
  const { uri } = split('amqp://us%40er:p%2Fw%25:@x@mq:5672/prod')
  expect(uri).toMatchObject({ user: 'us@er', password: 'p/w%:@x', hosts: [{ host: 'mq', port: 5672 }], path: '/prod' })
  expect(uri.text).toBe('amqp://us%40er:p%2Fw%25:@x@mq:5672/prod')
})

test('an IPv6 address without brackets is refused with the way to write it', () => {
  expect(faultOf('kafka://::1:9092/t')).toContain('[::1]:PORT')
  expect(faultOf('kafka://[::1/t')).toContain("without its ']'")
})

test('a scheme is known in any case', () => {
  expect(split('S3://lake/x').uri.scheme).toBe('s3')
})

test('a dash is stdio and a word without scheme is a path', () => {
  expect(split('-').uri).toMatchObject({ scheme: 'stdio', path: '' })
  expect(split('stdio:').uri).toMatchObject({ scheme: 'stdio', path: '' })
  for (const path of ['logs/app.ndjson', '/var/log/x', './a:b', '*.log', '../x', 'a b', '-x.log'])
    expect(split(path).uri).toEqual({ scheme: 'file', hosts: [], path, text: `file:${path}` })
})

test('file: keeps relative paths and globs as typed', () => {
  for (const path of [
    'a/../b',
    '**/*.{log,gz}',
    'x%20y',
    'data#1',
    'log-?.txt',
    'what?',
    'a?b=c',
    'x?y&follow=true',
    '[ab]?.log',
  ])
    expect(split(`file:${path}`).uri.path).toBe(path)
})

test('file:/// is the absolute path, and a host is refused', () => {
  expect(split('file:///var/log/x').uri.path).toBe('/var/log/x')
  expect(faultOf('file://host/x')).toContain('no host')
})

test('in file: a question mark opens a query only before a declared name=', () => {
  expect(split('file:a?.log?follow=true&framing=lines')).toMatchObject({
    uri: { path: 'a?.log', text: 'file:a?.log' },
    query: ['follow=true', 'framing=lines'],
  })
  expect(split('file:a?follow').uri.path).toBe('a?follow')
  expect(split('file:a?unknown=1').uri.path).toBe('a?unknown=1')
  expect(split('file:a?Fol_low=true').query).toEqual(['Fol_low=true'])
})

test('elsewhere an undeclared name in the query is an option, so that it is found wrong', () => {
  expect(split('kinesis:orders?regoin=x')).toMatchObject({ uri: { path: 'orders' }, query: ['regoin=x'] })
  expect(split('kinesis:arn:aws:kinesis:eu-west-1:1234:stream/orders').uri.path).toBe(
    'arn:aws:kinesis:eu-west-1:1234:stream/orders',
  )
})

test('the query of a feed goes out untouched', () => {
  const { uri, query } = split(
    'wss://feed.example:8443/v1?streams=btc/eth&b=%41+%zz&&token=x&reconnect-every=1h&ReconnectEvery=2h',
  )
  expect(uri.query).toBe('streams=btc/eth&b=%41+%zz&&token=x&reconnect-every=1h&ReconnectEvery=2h')
  expect(uri.text).toBe(
    'wss://feed.example:8443/v1?streams=btc/eth&b=%41+%zz&&token=x&reconnect-every=1h&ReconnectEvery=2h',
  )
  expect(query).toEqual([])
})

test("the original's reconnect_every is taken out of it", () => {
  expect(split('ws://h/p?a=1&reconnect_every=3600000000000&b=2')).toMatchObject({
    uri: { query: 'a=1&b=2', text: 'ws://h/p?a=1&b=2' },
    query: ['reconnect_every=3600000000000'],
  })
  const alone = split('ws://h/p?reconnect_every=1h').uri
  expect(alone.text).toBe('ws://h/p')
  expect(alone).not.toHaveProperty('query')
})

test('braces hold any character', () => {
  const { uri, query } = split(
    'amqp://{env:U}:{exec:echo a@b/c?d=e&f}@{env:H}:5672/{file:/x?y#z}?partition-key={json:a&b=c?d}&queue={env:Q&x}',
  )
  expect(uri).toMatchObject({
    user: '{env:U}',
    password: '{exec:echo a@b/c?d=e&f}',
    hosts: [{ host: '{env:H}', port: 5672 }],
    path: '/{file:/x?y#z}',
  })
  expect(query).toEqual(['partition-key={json:a&b=c?d}', 'queue={env:Q&x}'])
  expect(split('s3://b/{yyyy?}/x?key={a&b}').query).toEqual(['key={a&b}'])
  expect(split("file:{exec:awk '{print $1}' x?follow=true}").uri.path).toBe("{exec:awk '{print $1}' x?follow=true}")
})

test('query values are decoded once, placeholders in them not', () => {
  expect(split('s3://b/p?key=a%2520b%26c&region={env:A%20B}').query).toEqual(['key=a%20b&c', 'region={env:A%20B}'])
  const { query } = splitUri('s3://b/p?key=%7Benv:HOME%7D', fakes)
  expect(query[0]?.value).toEqual(['{env:HOME}'])
  expect(faultOf('s3://b/p?key=100%')).toContain('%25')
})

test('values of placeholders never become syntax', () => {
  const { parts } = splitUri('wss://{env:A}@h/p{env:A}?token={env:A}&{env:A}', fakes)
  const uri = buildUri(parts, () => 'a&b=c/d?e#f@g%')
  expect(uri).toMatchObject({ user: 'a&b=c/d?e#f@g%', hosts: [{ host: 'h' }], path: '/pa&b=c/d?e#f@g%' })
  expect(new URL(uri.text).searchParams.get('token')).toBe('a&b=c/d?e#f@g%')
  expect(uri.text.startsWith('wss://a%26b%3Dc%2Fd%3Fe%23f%40g%25@h/pa&b=c/d%3Fe%23f@g%25?token=')).toBe(true)
})

test('an unknown scheme is answered with the nearest', () => {
  expect(faultOf('kafak://h/t')).toBe("unknown scheme 'kafak'; did you mean 'kafka'?")
  expect(faultOf('gopher://h/t')).toContain('there are stdio, file, ws, wss')
  expect(faultOf('app:2024.log')).toContain('./NAME')
})

test('a URI without its host or slashes is answered with its form', () => {
  expect(faultOf('kafka:t')).toContain('kafka://HOST:PORT/TOPIC')
  expect(faultOf('kafka:///t')).toContain('kafka://HOST:PORT/TOPIC')
  expect(faultOf('kafka://h1,,h2/t')).toContain('no host')
  expect(split('s3:').uri.hosts).toEqual([])
})

test('no fault repeats what may be a password', () => {
  for (const uri of [
    'amqp://u:CANARY/x@mq/v',
    'amqp://u:CANARY?x@mq/v',
    'amqp://u:%zzCANARY@mq/v',
    'amqp://u@mq:CANARY/v',
    'kafka://a:b:CANARY@/t',
    'amqp://u:1:CANARY/x@mq/v',
  ])
    expect(faultOf(uri)).not.toContain('CANARY')
})

const hostName = fc.stringMatching(/^[a-z][a-z0-9.-]{0,10}$/)
const pathText = fc.stringMatching(/^[A-Za-z0-9 _.*+%#@:,-]{0,12}(\{[^{}]{0,8}\})?$/)

test('hierarchical URIs of any parts come back as those parts', () => {
  fc.assert(
    fc.property(
      fc.array(
        fc.record({ host: hostName, port: fc.option(fc.integer({ min: 1, max: 65_535 }), { nil: undefined }) }),
        { minLength: 1, maxLength: 4 },
      ),
      pathText,
      fc.option(fc.record({ user: fc.string({ minLength: 1, maxLength: 8 }), password: fc.string({ maxLength: 8 }) }), {
        nil: undefined,
      }),
      fc.array(fc.record({ name: fc.stringMatching(/^[a-z]{1,6}$/), value: fc.string({ maxLength: 12 }) }), {
        maxLength: 3,
      }),
      (hosts, path, login, options) => {
        const userinfo =
          login === undefined ? '' : `${encodeURIComponent(login.user)}:${encodeURIComponent(login.password)}@`
        const query = options.map(({ name, value }) => `${name}=${encodeURIComponent(value)}`).join('&')
        const text = `kafka://${userinfo}${hosts.map(({ host, port }) => `${host}${port === undefined ? '' : `:${port}`}`).join(',')}/${path}${query === '' ? '' : `?${query}`}`
        const found = split(text)
        expect(found.uri.hosts).toEqual(hosts.map(({ host, port }) => (port === undefined ? { host } : { host, port })))
        expect(found.uri.path).toBe(`/${path}`)
        if (login !== undefined) expect([found.uri.user, found.uri.password]).toEqual([login.user, login.password])
        expect(found.query).toEqual(options.map(({ name, value }) => `${name}=${value}`))
      },
    ),
    { numRuns: 300 },
  )
})

test('any text is split or refused with one line, never anything else', () => {
  fc.assert(
    fc.property(
      fc.oneof(
        fc.string(),
        fc
          .tuple(fc.constantFrom('s3:', 'ws://', 'file:', 'kafka://', 'amqp://', 'kinesis:'), fc.string())
          .map((parts) => parts.join('')),
      ),
      (text) => {
        try {
          split(text)
        } catch (error) {
          expect(error).toBeInstanceOf(UsageError)
          expect((error as UsageError).faults).toHaveLength(1)
          expect((error as UsageError).message).not.toContain('\n')
        }
      },
    ),
    { numRuns: 500 },
  )
})

test('paths of files come back as typed, whatever is in them', () => {
  fc.assert(
    fc.property(
      fc.string({ minLength: 1 }).filter((path) => !path.startsWith('//') && !/\?\s*(f|c)/i.test(path)),
      (path) => {
        expect(split(`file:${path}`).uri.path).toBe(path)
      },
    ),
    { numRuns: 300 },
  )
})
