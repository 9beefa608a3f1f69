/** State and spools of earlier programs are read by this one. */
import { execFileSync } from 'node:child_process'
import { appendFileSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { imbalance, type Receipt } from '../../src/core/accounting/receipt'
import { collector } from '../support/collector'
import { manifold } from '../support/manifold'

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'manifold-stored-before-'))
})
afterEach(() => {
  rmSync(folder, { recursive: true, force: true })
})

const numbered = (from: number, to: number): readonly string[] =>
  Array.from({ length: to - from + 1 }, (_, i) => `{"record":${from + i}}`)
const lines = (path: string): readonly string[] => readFileSync(join(folder, path), 'utf8').trimEnd().split('\n')
const text = (records: readonly string[]): string => records.map((record) => `${record}\n`).join('')

/**
 * `fixtures/stored-state.tgz` was written by the program of commit b14eb62, with PORT=1 and DIR=/proc/self/cwd, which
 * is the same path in every folder:
 *
 *   manifold --from 'file:{env:DIR}/in' follow --to 'ws://127.0.0.1:{env:PORT}/in' --to 'file:{env:DIR}/out' \
 *     --name house --state state --receipt receipts
 *
 * It was stopped by SIGTERM after 300 records, started again and killed by SIGKILL after 200 more. The spool has all
 * 500 for the WebSocket server, which was away. The file has them, and its position is stored. The receipt of the first
 * run was issued.
 */
test('a run goes on from the state that a killed run of an earlier program left', async () => {
  execFileSync('tar', ['xzf', join(__dirname, '../fixtures/stored-state.tgz'), '-C', folder])
  // The inode is another one after unpacking. A rotated file is known again by its content.
  renameSync(join(folder, 'in'), join(folder, 'in.1'))
  appendFileSync(join(folder, 'in.1'), text(numbered(501, 550)))
  writeFileSync(join(folder, 'in'), text(numbered(551, 600)))
  const server = await collector()
  try {
    const from = ['--from', 'file:{env:DIR}/in']
    const to = ['--to', 'ws://127.0.0.1:{env:PORT}/in', '--to', 'file:{env:DIR}/out']
    const { code, stderr } = await manifold(
      [...from, ...to, '--name', 'house', '--state', 'state', '--receipt', 'receipts'],
      { cwd: folder, env: { DIR: '/proc/self/cwd', PORT: String(server.port) } },
    )
    expect({ code, stderr: code === 0 ? '' : stderr }).toEqual({ code: 0, stderr: '' })
    expect(server.messages).toEqual(numbered(1, 600))
  } finally {
    server.close()
  }
  expect(lines('out')).toEqual(numbered(1, 600))
  const receipts = lines('receipts').map((line) => JSON.parse(line) as Receipt)
  const [feed, file] = [0, 1].map((sink) => receipts.map(({ sinks }) => sinks[sink]))
  expect({
    outcomes: receipts.map(({ outcome }) => outcome),
    read: receipts.map(({ read }) => read),
    feed: feed?.map((sink) => [sink?.carriedIn, sink?.delivered, sink?.spooled]),
    file: file?.map((sink) => [sink?.carriedIn, sink?.delivered, sink?.spooled]),
    off: receipts.flatMap(({ sinks }) => sinks.map(imbalance)).filter((off) => off !== 0),
    gaps: receipts.flatMap(({ gaps }) => gaps),
  }).toEqual({
    outcomes: ['stopped', 'killed', 'complete'],
    read: [300, 200, 100],
    feed: [
      [0, 0, 300],
      [300, 0, 500],
      [500, 600, 0],
    ],
    file: [
      [0, 300, 0],
      [0, 200, 0],
      [0, 100, 0],
    ],
    off: [],
    gaps: [],
  })
}, 20_000)
