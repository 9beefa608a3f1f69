/** Files in a folder of their own. */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { makeTarget } from '../../support/context'
import { inFolder, type Harness } from '../harness'

export const file: Harness = {
  source: {
    start: (endpoint, records) =>
      inFolder((folder, stop) => {
        writeFileSync(join(folder, 'in.ndjson'), records.map((each) => `${each}\n`).join(''))
        return Promise.resolve({ target: makeTarget(endpoint, `file:${folder}/in.ndjson`), expected: records, stop })
      }),
  },
  sink: {
    start: (endpoint) =>
      inFolder((folder, stop) =>
        Promise.resolve({
          target: makeTarget(endpoint, `file:${folder}/out.ndjson`),
          stop,
          stored: () => Promise.resolve(readFileSync(join(folder, 'out.ndjson'), 'utf8').trim().split('\n')),
        }),
      ),
  },
}
