/** Tests log lines in each of their formats. */
import { jsonLines } from '../../src/cli/json-lines'
import { createLog, type LogSettings } from '../../src/cli/log'

let said: string[] = []
jest.mock('../../src/cli/stderr', () => ({
  writeStderr: (text: string) => {
    said.push(text)
  },
}))
beforeEach(() => {
  said = []
})

function say(settings: Partial<LogSettings>): readonly string[] {
  const log = createLog({
    level: 'debug',
    terminal: false,
    journald: false,
    quiet: false,
    redact: (text) => text.replace('hidden', '***'),
    ...settings,
  })
  log.debug('one', { at: 'a b', count: 2, absent: undefined })
  log.info('two %s', { list: ['x'] })
  log.warn('three hidden')
  log.error('four')
  return said
}

test('plain lines', () => {
  expect(say({})).toEqual([
    'manifold: debug: one at=a b count=2\n',
    'manifold: two %s list=["x"]\n',
    'manifold: warn: three ***\n',
    'manifold: error: four\n',
  ])
})

test('under journald the level is a prefix, on a terminal too', () => {
  expect(say({ journald: true, terminal: true })).toEqual([
    '<7>one at=a b count=2\n',
    '<6>two %s list=["x"]\n',
    '<4>three ***\n',
    '<3>four\n',
  ])
})

test('on a terminal a line has the time and a shade', () => {
  expect(say({ terminal: true }).map((line) => line.replace(/\d\d:\d\d:\d\d/, 'TIME'))).toEqual([
    '\u001b[2mTIME debug\u001b[0m one at=a b count=2\n',
    '\u001b[2mTIME info\u001b[0m two %s list=["x"]\n',
    '\u001b[33mTIME warn\u001b[0m three ***\n',
    '\u001b[31mTIME error\u001b[0m four\n',
  ])
})

test('as JSON a line has level, time, facts and message', () => {
  const time = expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/) as string
  expect(say({ json: jsonLines() }).map((line) => JSON.parse(line) as unknown)).toEqual([
    { level: 20, time, at: 'a b', count: 2, msg: 'one' },
    { level: 30, time, list: ['x'], msg: 'two %s' },
    { level: 40, time, msg: 'three ***' },
    { level: 50, time, msg: 'four' },
  ])
  expect(said.every((line) => line.endsWith('}\n'))).toBe(true)
})

test.each([undefined, jsonLines()])('what is below the level is left out', (json) => {
  expect(say({ level: 'warn', ...(json === undefined ? {} : { json }) })).toHaveLength(2)
})

test('what was kept back is told on request, the first warning before all else', () => {
  const log = createLog({ level: 'info', terminal: false, journald: false, quiet: true, redact: (text) => text })
  log.debug('never')
  for (const text of ['one', 'two', 'three']) log.info(text)
  log.warn('odd')
  log.lasting('still odd')
  log.error('bad')
  expect(said).toEqual(['manifold: warn: still odd\n', 'manifold: error: bad\n'])
  log.showBuffered(5)
  expect(said.slice(2)).toEqual(['manifold: warn: odd\n', 'manifold: two\n', 'manifold: three\n'])
})
