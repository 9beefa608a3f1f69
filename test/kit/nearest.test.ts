import { editDistance, nearest } from '../../src/kit/nearest'

const NAMES = ['commit-file-size', 'commit-duration', 'upload-every', 'key', 'region']

test('a typo finds its name, whatever case and separators', () => {
  expect(nearest('comit-file-size', NAMES)).toBe('commit-file-size')
  expect(nearest('CommitFileSzie', NAMES)).toBe('commit-file-size')
  expect(nearest('upload_evry', NAMES)).toBe('upload-every')
  expect(nearest('keey', NAMES)).toBe('key')
})
test('a name with a word left out or swapped finds its name', () => {
  expect(nearest('commit-size', NAMES)).toBe('commit-file-size')
  expect(nearest('duration-commit', NAMES)).toBe('commit-duration')
})
test('another word finds nothing', () => {
  expect(nearest('bandwidth', NAMES)).toBeUndefined()
  expect(nearest('', NAMES)).toBeUndefined()
  expect(nearest('x', [])).toBeUndefined()
})
test('swapped neighbours are one mistake', () => {
  expect(editDistance('ab', 'ba')).toBe(1)
  expect(editDistance('kitten', 'sitting')).toBe(3)
  expect(editDistance('', 'abc')).toBe(3)
})
