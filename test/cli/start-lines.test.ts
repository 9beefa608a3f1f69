/**
 * Tests the lines that a run prints before its first record: where it resumes, what is dropped, and what the spool can
 * hold.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { startFeed } from '../support/feed'
import { manifold } from '../support/manifold'

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'manifold-lines-'))
})
afterEach(() => {
  rmSync(folder, { recursive: true, force: true })
})

async function said(...args: string[]): Promise<string> {
  const { code, stderr } = await manifold([...args, '--log-level', 'info'])
  expect({ code, stderr: code === 0 ? '' : stderr }).toEqual({ code: 0, stderr: '' })
  return stderr
}

test('where a file begins, where it goes on, that a stored position wins over start=, and how to begin anew', async () => {
  writeFileSync(join(folder, 'in'), 'a\n')
  const line = [
    '--from',
    `file:${join(folder, 'in')}`,
    '--to',
    `file:${join(folder, 'out')}`,
    '--name',
    'files',
    '--state',
    join(folder, 'state'),
  ]
  expect(await said(...line)).toMatch(
    /^manifold: flow files\nmanifold: file:.*in: begins at its start option; its position is kept from here on\n/,
  )
  expect(await said(...line)).toMatch(/in: resumes after 1 stored position; manifold forget files begins anew\n/)
  const [from = '', uri = '', ...rest] = line
  expect(await said(from, uri, 'start=latest', ...rest)).toMatch(
    /in: resumes after 1 stored position, which win over start=; what is new since then begins at its oldest; manifold forget files begins anew\n/,
  )
})

test('that nothing is kept, where nothing is', async () => {
  writeFileSync(join(folder, 'in'), 'a\n')
  expect(await said('--from', `file:${join(folder, 'in')}`, '--to', 'discard:')).toMatch(
    /in: begins anew each time; --name keeps its position\n/,
  )
})

test('what dies with this disk, that a sink cannot confirm, and what becomes of records that cannot be delivered', async () => {
  const feed = await startFeed({ perSecond: 200 })
  try {
    const lines = await said(
      '--from',
      feed.url,
      '--to',
      `file:${join(folder, 'out')}`,
      '--state',
      join(folder, 'state'),
      '--count',
      '5',
      '--dead-letter',
      'discard:',
    )
    expect(lines).toMatch(
      /, spool in .*state\/.*\/0\/spool: what lies there and is not yet delivered dies with this disk\n/,
    )
    expect(lines).toMatch(/records that cannot be delivered are dropped, and counted\n/)
  } finally {
    await feed.stop()
  }
})
