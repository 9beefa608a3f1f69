/** What is taken of an answer of AWS, piece by piece. */
import { Readable } from 'node:stream'
import { limitResponse, type HttpResponse } from '../../src/aws/response-limits'
import { Disconnected } from '../../src/core/errors'

const KIB = 1024
async function taken(answer: HttpResponse, most = 100 * KIB): Promise<string> {
  await limitResponse('POST', answer, most)
  const chunks: Buffer[] = []
  for await (const chunk of answer.body as AsyncIterable<Buffer>) chunks.push(chunk)
  return Buffer.concat(chunks).toString('latin1')
}
function* endless(begin: string): Generator<Buffer> {
  yield Buffer.from(begin)
  for (;;) yield Buffer.alloc(16 * KIB, 'x')
}
const error = (begin: string, headers: Record<string, string> = {}): HttpResponse => ({
  statusCode: 400,
  headers,
  body: Readable.from(endless(begin)),
})
function event(length: number): Buffer {
  const bytes = Buffer.alloc(Math.min(length, 4 * KIB))
  bytes.writeUInt32BE(length)
  return bytes
}
const events = (...chunks: readonly Buffer[]): HttpResponse => ({
  statusCode: 200,
  headers: { 'content-type': 'application/vnd.amazon.eventstream' },
  body: Readable.from(chunks),
})

test('of an error without end its code is left', async () => {
  expect(await taken(error('<Error><Code>SlowDown</Code><Message>'))).toBe(
    '<Error><Code>SlowDown</Code><Message>its text is longer than 64KiB</Message></Error>',
  )
  expect(await taken(error('{"__type":"com.amazonaws#Throttled","message":"'))).toBe(
    '{"__type":"com.amazonaws#Throttled","message":"its text is longer than 64KiB"}',
  )
  expect(await taken(error('<html>'))).toBe('')
  const answer = error('<html>')
  const { body } = answer
  const closed = new Promise((resolve) => {
    ;(body as Readable).once('close', resolve)
  })
  await limitResponse('GET', answer, 1)
  await closed
})

test('an error of an ordinary length, and a success, stay as they are', async () => {
  expect(await taken({ statusCode: 404, headers: {}, body: Readable.from([Buffer.from('a'), Buffer.from('b')]) })).toBe(
    'ab',
  )
  const known = Readable.from([Buffer.from('ok')])
  const answer: HttpResponse = { statusCode: 200, headers: { 'content-length': '2' }, body: known }
  await limitResponse('POST', answer, 10)
  expect(answer.body).toBe(known)
  const head: HttpResponse = { statusCode: 200, headers: { 'content-length': '99999999' }, body: known }
  await limitResponse('HEAD', head, 10)
  expect(head.body).toBe(known)
})

test('a success without end is none', async () => {
  await expect(taken({ statusCode: 200, headers: {}, body: Readable.from(endless('')) })).rejects.toThrow(Disconnected)
  await expect(
    taken({ statusCode: 200, headers: { 'content-length': '400000000' }, body: Readable.from(endless('')) }),
  ).rejects.toThrow(/an answer of more than the 100KiB/)
})

test('events pass one after the other, however they are cut; one that is announced too large does not', async () => {
  const all = Buffer.concat([event(16), event(100), event(4 * KIB)])
  expect(await taken(events(...Array.from({ length: all.length }, (_, i) => all.subarray(i, i + 1))))).toBe(
    all.toString('latin1'),
  )
  await expect(taken(events(event(16), event(2 ** 31)))).rejects.toThrow(/an event of more than the 100KiB/)
  await expect(taken(events(event(16), Buffer.alloc(16)))).rejects.toThrow(Disconnected)
})
