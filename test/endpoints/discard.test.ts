import { LineBatch } from '../../src/core/batch'
import type { EndpointContext, Write } from '../../src/core/contract'
import { DiscardSink } from '../../src/endpoints/discard/sink'
import { systemClock } from '../../src/kit/clock'

const log = { debug: () => undefined, info: () => undefined, warn: () => undefined }
const context: EndpointContext = {
  signal: new AbortController().signal,
  clock: systemClock,
  log,
  gauge: () => undefined,
}
const write: Write = {
  id: '1',
  attempt: 1,
  payload: new LineBatch([Buffer.from('a\n')], 1),
  origin: () => ({ source: 's', partition: 'p', position: '0', receivedAt: 0 }),
}

test('every record is confirmed', async () => {
  const sink = new DiscardSink(0)
  await sink.open(context)
  expect(await sink.write(write, context.signal)).toEqual({ retry: [], rejected: [] })
  await sink.close()
})

test('a delayed write ends at once when its signal aborts', async () => {
  const sink = new DiscardSink(3_600_000)
  await sink.open(context)
  const stop = new AbortController()
  const writing = sink.write(write, stop.signal)
  stop.abort(new Error('enough'))
  await expect(writing).rejects.toThrow('enough')
  await sink.close()
})
