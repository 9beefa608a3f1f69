/** Tests the real file system without free descriptors, in a process with a small limit. */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const BUILT = join(__dirname, '../../dist/kit/file-system.js')

test('a file is opened once a descriptor is free again, and a directory synced', () => {
  const folder = mkdtempSync(join(tmpdir(), 'manifold-descriptors-'))
  // All descriptors are taken; the first of them is closed when both calls are under way.
  const script = `
    const { openSync, closeSync } = require('node:fs')
    const { realFileSystem } = require(${JSON.stringify(BUILT)})
    const taken = []
    try { for (;;) taken.push(openSync('/dev/null')) } catch (error) { if (error.code !== 'EMFILE') throw error }
    const work = Promise.all([realFileSystem.open(process.argv[1] + '/x', 'create'), realFileSystem.syncDirectory(process.argv[1])])
    setTimeout(() => { for (const one of taken) closeSync(one) }, 300)
    work.then(() => { console.log('done after waiting') })
  `
  try {
    const command = `ulimit -n 60; exec "$0" -e "$1" "$2"`
    const { stdout, stderr } = spawnSync('bash', ['-c', command, process.execPath, script, folder], {
      encoding: 'utf8',
      timeout: 20_000,
    })
    expect({ stdout, stderr }).toEqual({ stdout: 'done after waiting\n', stderr: '' })
    expect(readdirSync(folder)).toEqual(['x'])
  } finally {
    rmSync(folder, { recursive: true })
  }
})
