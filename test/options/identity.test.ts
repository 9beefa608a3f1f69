import { createHash } from 'node:crypto'
import { parseCommandLine } from '../../src/options/command-line'
import { identityOf } from '../../src/options/identity'
import { fakes } from './fakes'

function source(...words: string[]): string {
  return canonical(['--from', ...words, '--to', 'discard:'], 'from')
}
function sink(...words: string[]): string {
  return canonical(['--from', '-', '--to', ...words], 'to')
}
function canonical(argv: readonly string[], side: 'from' | 'to'): string {
  const parsed = parseCommandLine(argv, {}, fakes, { exists: () => false })[side][0]
  if (parsed === undefined) throw new Error('nothing there')
  return identityOf(parsed, '/work').canonical
}

test('paths are absolute', () => {
  expect(source('logs/*.log')).toBe('file:/work/logs/*.log')
  expect(source('file:./a/../b')).toBe(source('/work/b'))
  expect(source('{env:DIR}/b')).toBe('file:{env:DIR}/b')
  expect(source('-')).toBe('stdio:')
})

test('how it is read is no part of it, what is read is', () => {
  expect(source('kafka://h/t', 'group=a', 'start=latest')).toBe(source('kafka://h/t?group=a'))
  expect(source('kafka://h/t', 'group=a')).not.toBe(source('kafka://h/t', 'group=b'))
  expect(source('kafka://h/t', 'group=a')).not.toBe(source('kafka://h/u', 'group=a'))
})

test('the order and case of hosts, a final slash and credentials change nothing', () => {
  expect(source('kafka://H1:9092,h2/t')).toBe(source('kafka://h2,h1:9092/t/'))
  expect(source('amqp://u:one@mq/v', 'queue=q')).toBe(source('amqp://u:two@mq/v', 'queue=q'))
  expect(source('amqp://u@mq/v', 'queue=q')).not.toBe(source('amqp://w@mq/v', 'queue=q'))
})

test('a default that is typed is the default', () => {
  expect(sink('kafka://h/t', 'acks=ALL')).toBe(sink('kafka://h/t'))
})

test("a feed's query counts as typed, and is not shown", () => {
  expect(source('wss://h/p?key=CANARY&a=b')).toMatch(/^wss:\/\/h\/p\?[0-9a-f]{16}$/)
  expect(source('wss://h/p?a=1')).not.toBe(source('wss://h/p?a=2'))
  expect(source('wss://h/p?a=1&reconnect_every=1h')).toBe(source('wss://h/p?a=1'))
  expect(source('wss://h/p?a={env:A}', 'header.X=1')).toBe(source('wss://h/p?a={env:A}', 'header.X=2'))
})

test('what is sent to a feed counts, and is not shown', () => {
  expect(source('wss://h/p', 'send=CANARY')).toMatch(/^wss:\/\/h\/p send=[0-9a-f]{16}$/)
  expect(source('wss://h/p', 'send=a', 'send=b')).not.toBe(source('wss://h/p', 'send=b', 'send=a'))
})

test('the hash is that of the text', () => {
  const [parsed] = parseCommandLine(['--from', '-', '--to', 'discard:'], {}, fakes).to
  if (parsed === undefined) throw new Error('nothing there')
  expect(identityOf(parsed)).toMatchObject({
    canonical: 'discard:',
    hash: createHash('sha256').update('discard:').digest('hex'),
  })
})
